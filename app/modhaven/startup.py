"""What is looked at once before the server starts: a mistake is a sentence, not a crash loop."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from modhaven import direct_env
from modhaven.checks import ConfigError
from modhaven.store.base import StoreError
from modhaven.store.disk import DiskStore

if TYPE_CHECKING:
    from modhaven.config import Config


def check(config: Config) -> None:
    """Raise ConfigError unless the server can start with this configuration."""
    if not config.ca_file.is_file():
        raise ConfigError(
            f"ca_file {config.ca_file} does not exist; install ca-certificates or name another file"
        )
    if any(spec.is_direct for spec in config.upstreams):
        direct_env.check_commands(config.direct)
    _check_store(config.store.path)
    # With sockets from systemd, nothing is bound here.
    if "LISTEN_FDS" not in os.environ:
        _check_listen(config.listen)


def _check_store(root: Path) -> None:
    """Refuse a store that this user cannot write; a full disk can still be served from."""
    advice = "make it writable for this user, or name another directory"
    try:
        DiskStore(root, min_free_bytes=0)
    except StoreError as error:
        raise ConfigError(f"store.path {root} cannot be used: {error}; {advice}") from None
    for folder in (root, root / "tmp", root / "locks", root / "mutable", root / "cache/download"):
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            raise ConfigError(f"store.path {root} cannot be used: {folder}: not writable; {advice}")


def _check_listen(listen: str) -> None:
    try:
        if listen.startswith("unix:"):
            _try_unix(Path(listen.removeprefix("unix:")))
        else:
            _try_tcp(listen)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            what = "is taken by another program; stop that one, or choose another address"
        else:
            what = f"cannot be listened on: {error.strerror}; choose another address"
        raise ConfigError(f"listen {listen} {what}") from None


def _try_tcp(listen: str) -> None:
    host, _, port = listen.rpartition(":")
    found = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as tried:
        # As gunicorn does: connections that linger from the last run are no obstacle.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind(address)


def _try_unix(path: Path) -> None:
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, f"{path.parent} is not a directory we may write to")
    if not path.exists():
        return
    if not path.is_socket():
        raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
    with socket.socket(socket.AF_UNIX) as tried:
        try:
            tried.connect(str(path))
        except ConnectionRefusedError:
            # Left by a server that was killed: the next one replaces it.
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
