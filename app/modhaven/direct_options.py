"""The configuration's section ``direct``: its keys, and their checks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from modhaven import checks
from modhaven.settings import SSHHost

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from modhaven.checks import Check

_VCS = re.compile(
    r"[^\s:,|]+:(?:all|off|(?:git|hg|svn|bzr|fossil)(?:\|(?:git|hg|svn|bzr|fossil))*)"
)


def _vcs(value: object) -> str:
    wanted = "must be in GOVCS's syntax, such as *:git or corp.x:git,*:off"
    if not isinstance(value, str) or not value:
        raise ValueError(f"{wanted}, not {value!r}")
    for part in value.split(","):
        if not _VCS.fullmatch(part.strip()):
            raise ValueError(f"{wanted}, not {part!r}")
    return value


def _ssh_file(value: object) -> Path:
    """Accept paths that ssh's configuration takes literally."""
    path = checks.path(value)
    if set('"%\n\\') & set(str(path)):
        raise ValueError("may not have a quote, percent sign, backslash or line break")
    return path


_host = checks.text(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "a host name in lower case, without a port")
SSH: Mapping[str, Check] = {
    "host": _host,
    "user": checks.text(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", "a user name"),
    "port": checks.whole(1, 65535),
    "key_file": _ssh_file,
}


def _ssh(value: object) -> tuple[SSHHost, ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list of host, user, port and key_file")
    hosts: list[SSHHost] = []
    for number, entry in enumerate(value, start=1):
        options: dict[str, Any] = checks.section(f"direct.ssh entry {number}", entry, SSH)
        if not {"host", "key_file"} <= options.keys():
            raise ValueError(f"entry {number} must have a host and a key_file")
        host = SSHHost(**options)
        if any(host.host == other.host for other in hosts):
            raise ValueError(f"entry {number}: {host.host} has an entry already")
        hosts.append(host)
    return tuple(hosts)


KEYS: Mapping[str, Check] = {
    "go": checks.text(r"[^\0]+", "a command's name or path"),
    "processes": checks.whole(1, 64),
    "vcs": _vcs,
    "insecure": checks.patterns,
    "netrc_file": checks.path,
    "ssh": _ssh,
    "known_hosts_file": _ssh_file,
    "cache_max_bytes": checks.whole(1 << 20, 1 << 60),
}


def section(value: object) -> dict[str, object]:
    """Return the section's values; ConfigError."""
    values = checks.section("direct", value, KEYS)
    if values.get("ssh") and "known_hosts_file" not in values:
        raise checks.ConfigError(
            "direct.ssh needs direct.known_hosts_file: a host whose key is unknown is not trusted"
        )
    return values
