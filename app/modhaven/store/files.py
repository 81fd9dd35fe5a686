"""Files written whole: in ``tmp``, flushed, renamed. A crash leaves all of a file or none."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import secrets
import struct
import time
from typing import TYPE_CHECKING, BinaryIO

from modhaven.store.base import LockTimeoutError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Longer than any request's deadline: what is older was left by a process that died.
_LEFTOVER_SECONDS = 3600
_LOCK_POLL_SECONDS = 0.02
# struct flock: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi0q")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a write to a file can meet; anything else that is an OSError may be a socket's.
_OF_THE_DISK = _FULL | {errno.EFBIG, errno.EIO, errno.EROFS}


class Writer:
    """Writes files of one file system by way of its ``tmp``."""

    def __init__(self, tmp: Path) -> None:
        """Keep temporary files in ``tmp``, which exists."""
        self._tmp = tmp

    def open_temporary(self) -> tuple[Path, BinaryIO]:
        """Open a new file that nobody looks at; OSError."""
        # Not tempfile: its files are 0600, and nginx reads these through the store's group.
        path = self._tmp / secrets.token_hex(16)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        return path, os.fdopen(descriptor, "w+b")

    def write(self, target: Path, data: bytes, *, durable: bool = True) -> None:
        """Replace ``target`` atomically; StoreError.

        Without ``durable`` it may be empty, or the old one, after a power cut: for what can be made
        anew, and shows when it is damaged.
        """
        try:
            path, file = self.open_temporary()
            try:
                with file:
                    file.write(data)
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
                rename(path, target, durable=durable)
            finally:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise store_error(error) from error

    def remove_leftovers(self) -> None:
        """Remove what processes that died have left; OSError."""
        oldest = time.time() - _LEFTOVER_SECONDS
        for path in self._tmp.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def rename(source: Path, target: Path, *, durable: bool = True) -> None:
    """Move a file within the file system; OSError.

    Without ``durable`` it may be where it was, or gone, after a power cut.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    if not durable:
        return
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names_below(root: Path) -> Iterator[str]:
    """Yield the files below ``root`` as paths relative to it; none where there is no such folder.

    What comes or goes meanwhile may or may not be among them.
    """
    prefix = f"{root}/"
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            yield f"{folder}/{name}".removeprefix(prefix)


@contextlib.contextmanager
def hold(path: Path, key: str, *, wait_seconds: float) -> Iterator[None]:
    """Hold ``key``'s lock in the file ``path`` across processes; it dies with its holder.

    Raises LockTimeoutError, which names the key, and StoreError.
    """
    # A byte of one file that stays. A file for each lock, made and removed each time, leaves freed
    # inodes behind, which ext4 avoids for a while: every new file would take longer.
    at = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    end = time.monotonic() + wait_seconds
    while (descriptor := _try_lock(path, at)) is None:
        if time.monotonic() >= end:
            raise LockTimeoutError(f"another process has been fetching {key} for too long")
        time.sleep(_LOCK_POLL_SECONDS * (0.5 + random.random()))  # noqa: S311 - only spreads
    try:
        yield
    finally:
        os.close(descriptor)


def _try_lock(path: Path, at: int) -> int | None:
    """Return a descriptor that holds byte ``at`` of ``path``, or None when somebody else has it."""
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        # Of the open file, not of the process: threads exclude each other too (fcntl(2)).
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except OSError as error:
        if descriptor is not None:
            os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES) and descriptor is not None:
            return None
        raise store_error(error) from error
    return descriptor


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turn what a disk can do to a write in this block into StoreError."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_THE_DISK:
            raise store_error(error) from error
        raise


def store_error(error: OSError) -> StoreError:
    """Return the failure as a sentence that says what to look at."""
    where = error.filename or "a file of the store"
    what = error.strerror or str(error)
    if error.errno in _FULL:
        what += ": free some space on the file system of store.path"
    return StoreError(f"{where}: {what}")
