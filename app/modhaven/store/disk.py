"""The store on a file system, in the layout of the go command's module cache.

    <root>/cache/download/<escaped module>/@v/{list,v1.0.0.info,v1.0.0.mod,v1.0.0.zip}
    <root>/cache/download/sumdb/<name>/{lookup,tile}/…
    <root>/mutable/…        answers that change, each with its fetch time: nginx never looks here
    <root>/unverified/…     markers of files the checksum database could not be asked about
    <root>/quarantine/…     files that failed verification, for the operator
    <root>/tmp, <root>/locks

So nginx serves hits from ``cache/download``, ``GOPROXY=file://<root>/cache/download`` works, and
any module cache can seed it. A file is written in tmp, flushed, and renamed: a reader or a crash
sees the whole file or none.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import secrets
import shutil
import time
from typing import TYPE_CHECKING, BinaryIO

from modhaven import modpath, semver
from modhaven.store.base import LockTimeoutError, Mutable, Stored, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Longer than any request's deadline: what is older was left by a process that died.
_LEFTOVER_SECONDS = 3600
_LOCK_POLL_SECONDS = 0.02


class DiskStore:
    """A store below ``root``, safe for many threads and processes of one host."""

    def __init__(self, root: Path, *, min_free_bytes: int) -> None:
        """Create the folders; StoreError when that fails."""
        self.root = root
        self._min_free_bytes = min_free_bytes
        self._download = root / "cache" / "download"
        self._mutable = root / "mutable"
        self._unverified = root / "unverified"
        self._quarantine = root / "quarantine"
        self._tmp = root / "tmp"
        self._locks = root / "locks"
        try:
            for folder in (self._download, self._mutable, self._tmp, self._locks, self._quarantine):
                folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
        except OSError as error:
            raise _store_error(error) from error

    def find(self, key: str) -> Stored | None:
        """Return the published file, or None."""
        path = self._download / key
        try:
            size = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _store_error(error) from error
        return Stored(path=path, size=size, unverified=(self._unverified / key).exists())

    @contextlib.contextmanager
    def stage(self, key: str) -> Iterator[DiskStaged]:
        """Open a temporary file for ``key``; what is unpublished at the end is removed."""
        try:
            path, file = self._open_temporary()
        except OSError as error:
            raise _store_error(error) from error
        try:
            with file:
                yield DiskStaged(self, key, path, file)
        finally:
            path.unlink(missing_ok=True)

    def get_mutable(self, key: str) -> Mutable | None:
        """Return the last answer kept for ``key``, however old."""
        try:
            head, _, body = (self._mutable / key).read_bytes().partition(b"\n")
            meta = json.loads(head)
            age = max(0.0, time.time() - float(meta["fetched"]))
            return Mutable(body=body, source=str(meta["source"]), age=age)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _store_error(error) from error
        except (ValueError, KeyError, TypeError):
            # Written by nothing of ours: as good as absent, and overwritten by the next answer.
            return None

    def put_mutable(self, key: str, body: bytes, source: str) -> None:
        """Keep an answer with the time of now; StoreError."""
        head = json.dumps({"fetched": time.time(), "source": source}).encode()
        self._write(self._mutable / key, head + b"\n" + body)

    def versions(self, escaped_module: str) -> list[str]:
        """Return the versions whose .info is held, pseudo-versions included, in no order."""
        found = []
        folder = self._download / escaped_module / "@v"
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as it:
            for entry in it:
                if entry.name.endswith(".info"):
                    with contextlib.suppress(modpath.InvalidPathError):
                        found.append(modpath.unescape_version(entry.name.removesuffix(".info")))
        return found

    @contextlib.contextmanager
    def lock(self, key: str, *, wait_seconds: float) -> Iterator[None]:
        """Hold ``key`` across processes; LockTimeoutError. It dies with its holder."""
        path = self._locks / hashlib.sha256(key.encode()).hexdigest()
        end = time.monotonic() + wait_seconds
        while (descriptor := _try_lock(path)) is None:
            if time.monotonic() >= end:
                raise LockTimeoutError(f"another process has been fetching {key} for too long")
            time.sleep(_LOCK_POLL_SECONDS * (0.5 + random.random()))  # noqa: S311 - only spreads
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def folder(self, key: str) -> Path:
        """Return where below the published files ``key`` is or would be."""
        return self._download / key

    def problem(self) -> str | None:
        """Return why the store cannot take files now, as a sentence, or None."""
        try:
            path, file = self._open_temporary()
            file.close()
            path.unlink()
            free = shutil.disk_usage(self.root).free
        except OSError as error:
            return str(_store_error(error))
        if free < self._min_free_bytes:
            return (
                f"{self.root} has {free} bytes free, less than store.min_free_bytes "
                f"({self._min_free_bytes}): free some space"
            )
        return None

    def _publish(self, staged: DiskStaged, *, unverified: bool) -> Stored:
        target = self._download / staged.key
        marker = self._unverified / staged.key
        try:
            staged.file.flush()
            os.fsync(staged.file.fileno())
            size = os.fstat(staged.file.fileno()).st_size
            if unverified:
                self._write(marker, b"")
            _rename(staged.path, target)
            if not unverified:
                marker.unlink(missing_ok=True)
        except OSError as error:
            raise _store_error(error) from error
        if staged.key.endswith(".info"):
            self._update_list(staged.key.rpartition("/@v/")[0])
        return Stored(path=target, size=size, unverified=unverified)

    def _update_list(self, escaped_module: str) -> None:
        """Rewrite @v/list for GOPROXY=file://: the versions held, no pseudo-versions."""
        key = f"{escaped_module}/@v/list"
        with self.lock(key, wait_seconds=10):
            tagged = [v for v in self.versions(escaped_module) if not semver.is_pseudo(v)]
            tagged.sort(key=semver.sort_key)
            self._write(self._download / key, "".join(f"{v}\n" for v in tagged).encode())

    def _move_to_quarantine(self, staged: DiskStaged, reason: str) -> Path:
        name = staged.key.replace("/", "_")[-150:]
        target = self._quarantine / f"{int(time.time())}-{secrets.token_hex(4)}-{name}"
        try:
            staged.file.flush()
            staged.path.rename(target)
            self._write(target.with_name(target.name + ".reason"), f"{reason}\n".encode())
        except OSError as error:
            raise _store_error(error) from error
        return target

    def _write(self, target: Path, data: bytes) -> None:
        """Replace ``target`` atomically and durably."""
        try:
            path, file = self._open_temporary()
            try:
                with file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                _rename(path, target)
            finally:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise _store_error(error) from error

    def _open_temporary(self) -> tuple[Path, BinaryIO]:
        # Not tempfile: its files are 0600, and nginx reads these through the store's group.
        path = self._tmp / secrets.token_hex(16)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        return path, os.fdopen(descriptor, "w+b")

    def _remove_leftovers(self) -> None:
        oldest = time.time() - _LEFTOVER_SECONDS
        for path in self._tmp.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


class DiskStaged:
    """A temporary file of a DiskStore."""

    def __init__(self, store: DiskStore, key: str, path: Path, file: BinaryIO) -> None:
        """Bind the open ``file`` at ``path`` to the key it may be published under."""
        self._store = store
        self.key = key
        self.path = path
        self.file = file

    def publish(self, *, unverified: bool = False) -> Stored:
        """Make it durable and visible under its key, all or nothing; StoreError."""
        return self._store._publish(self, unverified=unverified)

    def quarantine(self, reason: str) -> Path:
        """Keep it out of reach for an operator to look at, with the reason beside it."""
        return self._store._move_to_quarantine(self, reason)


def _try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock at ``path``, or None when somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the file we opened: a lock on it would exclude nobody.
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _rename(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _store_error(error: OSError) -> StoreError:
    where = error.filename or "the store"
    return StoreError(f"{where}: {error.strerror or error}")
