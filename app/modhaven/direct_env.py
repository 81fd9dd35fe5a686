"""What the go command and git get to see: an environment made from nothing, and their files.

Nothing is inherited from the server. Credentials come from the files that the configuration names,
which are read at each call.
"""

from __future__ import annotations

import netrc
import os
import shlex
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from modhaven.attempt import AttemptError
from modhaven.checks import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from modhaven.settings import DirectConfig, SSHHost

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
# Where the Go team's own archive is unpacked, which no service has in its PATH.
_GO_PATH = "/usr/local/go/bin"
# Below a byte a second for this long, git gives a server up.
_STALL_SECONDS = 60
_CONNECT_SECONDS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one ``direct`` of the chain has of its own, with the common settings."""

    common: DirectConfig
    ca_file: Path
    proxy: str
    private: str


def find_go(command: str) -> str:
    """Return the go command's path. AttemptError, a sentence, when there is none."""
    found = shutil.which(command, path=f"{os.environ.get('PATH', os.defpath)}:{_GO_PATH}")
    if found is None:
        raise AttemptError(
            f"the go command {command!r} was not found: install Go, or name it in direct.go"
        )
    return found


def find_git() -> str:
    """Return git's path. AttemptError, a sentence, when there is none."""
    found = shutil.which("git", path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}")
    if found is None:
        raise AttemptError("git was not found: install it")
    return found


def check_commands(config: DirectConfig) -> None:
    """Raise ConfigError, one sentence, when the go command or git is missing."""
    try:
        find_go(config.go)
        find_git()
    except AttemptError as error:
        raise ConfigError(f"upstreams has direct, and {error}") from None


def netrc_hosts(file: Path | None) -> frozenset[str]:
    """Return the hosts that the netrc file has a login for. AttemptError, which quotes no word."""
    if file is None:
        return frozenset()
    try:
        hosts = netrc.netrc(str(file)).hosts
    except OSError as error:
        raise AttemptError(f"direct.netrc_file {file} cannot be read: {error.strerror}") from None
    except (netrc.NetrcParseError, UnicodeDecodeError):
        raise AttemptError(f"direct.netrc_file {file} is not in netrc's syntax") from None
    if "default" in hosts:
        raise AttemptError(
            f"direct.netrc_file {file} has a default entry, which would show its password to every"
            " host that asks: name the hosts"
        )
    return frozenset(hosts)


def prepare(folder: Path, settings: Settings) -> dict[str, str]:
    """Write the files of one call into ``folder``, which is empty; return the environment.

    ``folder/mod`` is GOMODCACHE and ``folder/work`` the working folder. Raises AttemptError,
    OSError.
    """
    common = settings.common
    for name in ("home/.config/go/telemetry", "work", "tmp", "mod/cache", "empty"):
        (folder / name).mkdir(parents=True)
    # Or each go command, being the first of its home, starts a process that outlives it.
    (folder / "home/.config/go/telemetry/mode").write_text("off\n")
    if common.netrc_file is not None:
        (folder / "home/.netrc").symlink_to(common.netrc_file)
    (folder / "gitconfig").write_text(git_config(settings))
    (folder / "ssh_config").write_text(ssh_config(common.ssh, common.known_hosts_file))
    programs = dict.fromkeys(os.path.dirname(p) for p in (find_go(common.go), find_git()))  # noqa: PTH120
    environment = {
        "PATH": ":".join([*programs, _SYSTEM_PATH]),
        "HOME": str(folder / "home"),
        "LC_ALL": "C",
        "TMPDIR": str(folder / "tmp"),
        "GOENV": "off",
        "GO111MODULE": "on",
        "GOFLAGS": "-modcacherw",
        "GOTOOLCHAIN": "local",
        "GOPROXY": "direct",
        # What arrives is verified by this server, as from everywhere.
        "GOSUMDB": "off",
        "GOPRIVATE": settings.private,
        "GOVCS": common.vcs,
        "GOINSECURE": common.insecure,
        "GOAUTH": "netrc",
        "GOPATH": str(folder / "path"),
        "GOMODCACHE": str(folder / "mod"),
        "GOCACHE": str(folder / "build"),
        "GOTMPDIR": str(folder / "tmp"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_TEMPLATE_DIR": "",
        "GIT_ALLOW_PROTOCOL": "https:ssh:http" if common.insecure else "https:ssh",
        "GIT_SSH_COMMAND": f"ssh -F {shlex.quote(str(folder / 'ssh_config'))}",
        "GIT_SSH_VARIANT": "ssh",
        "SSL_CERT_FILE": str(settings.ca_file),
        "SSL_CERT_DIR": str(folder / "empty"),
        "GIT_SSL_CAINFO": str(settings.ca_file),
        "GIT_SSL_CAPATH": str(folder / "empty"),
    }
    if settings.proxy:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            environment[name] = settings.proxy
    return environment


def git_config(settings: Settings) -> str:
    """Return git's configuration file (git-config(1)): no helper, no hook, nothing behind us."""
    lines = [
        "[core]", "hooksPath = /dev/null",
        "[credential]", "helper =",
        # In the background, they would outlive the call and its lock.
        "[gc]", "auto = 0", "autoDetach = false",
        "[maintenance]", "auto = false",
        "[http]", "lowSpeedLimit = 1", f"lowSpeedTime = {_STALL_SECONDS}",
    ]  # fmt: skip
    if urlsplit(settings.proxy).username:
        # Or git first asks without, which some proxies take as the last word.
        lines.append("proxyAuthMethod = basic")
    for host in settings.common.ssh:
        lines += [
            f'[url "ssh://{host.user}@{host.host}:{host.port}/"]',
            f"insteadOf = https://{host.host}/",
        ]
    return "\n".join(lines) + "\n"


def ssh_config(hosts: tuple[SSHHost, ...], known_hosts: Path | None) -> str:
    """Return ssh's configuration file (ssh_config(5)): one key a host, and no unknown host."""
    lines: list[str] = []
    for host in hosts:
        lines += [
            f"Host {host.host}",
            # For an origin that names its repositories by ssh:// itself.
            f"User {host.user}",
            f"Port {host.port}",
            f'IdentityFile "{host.key_file}"',
            "PubkeyAuthentication yes",
        ]
    lines += [
        "Host *",
        "BatchMode yes",
        "StrictHostKeyChecking yes",
        f'UserKnownHostsFile "{known_hosts or "/dev/null"}"',
        "GlobalKnownHostsFile /dev/null",
        "UpdateHostKeys no",
        "IdentitiesOnly yes",
        "IdentityAgent none",
        "IdentityFile none",
        "PubkeyAuthentication no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "ForwardAgent no",
        "ClearAllForwardings yes",
        "ControlMaster no",
        "ControlPath none",
        f"ConnectTimeout {_CONNECT_SECONDS}",
        f"ServerAliveInterval {_CONNECT_SECONDS}",
        "ServerAliveCountMax 3",
    ]
    return "\n".join(lines) + "\n"
