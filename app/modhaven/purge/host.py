"""What this host is, and who may remove what on it."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from modhaven.checks import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NGINX = "etc/nginx/modhaven"
BACKEND = "etc/modhaven/modhaven.yml"
# nginx's default where files are kept open at all (ngx_http_core_module).
_DEFAULT_OPEN_SECONDS = 60
_OPEN = re.compile(r"^\s*open_file_cache\s+max=", re.MULTILINE)
_OPEN_VALID = re.compile(r"^\s*open_file_cache_valid\s+([0-9]+)([smh]?);", re.MULTILINE)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def nginx_text(root: Path, role: str) -> str:
    """Return the nginx configuration of one role on this host; empty where it is not; OSError."""
    folder = root / NGINX / role
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.conf")))


def open_seconds_of(root: Path, role: str) -> int:
    """Return ``open_seconds`` of one role, and of what all roles share; OSError."""
    return open_seconds(nginx_text(root, "main") + nginx_text(root, role))


def open_seconds(text: str) -> int:
    """Return for how many seconds nginx may serve a removed file that it has open."""
    valid = [int(number) * _UNITS[unit] for number, unit in _OPEN_VALID.findall(text)]
    if valid:
        return max(valid)
    return _DEFAULT_OPEN_SECONDS if _OPEN.search(text) else 0


@contextlib.contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """Act as the user that ``folder`` belongs to, and with that user's rights only; ConfigError.

    What is written there has to be that user's; and a link that this user has put there leads root
    nowhere.
    """
    try:
        owner = folder.stat()
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be purged: {error.strerror}; run this as root"
        ) from None
    user, group = os.geteuid(), os.getegid()
    if user == owner.st_uid:
        yield
        return
    if user != 0:
        raise ConfigError(f"{folder} belongs to another user: run this as root")
    groups = os.getgroups()
    os.setgroups([owner.st_gid])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)
        os.setgroups(groups)
