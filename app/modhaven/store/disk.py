"""The store on a file system, in the layout of the go command's module cache.

    <root>/cache/download/<escaped module>/@v/{list,v1.0.0.info,v1.0.0.mod,v1.0.0.zip}
    <root>/cache/download/sumdb/<name>/{lookup,tile}/…
    <root>/mutable/…        answers that change, each with its fetch time: nginx never looks here
    <root>/unverified/…     markers of files the checksum database could not be asked about
    <root>/pins/…           hashes of files that no checksum database is asked about
    <root>/quarantine/…     files that failed verification, for the operator
    <root>/purges           what has been purged, for every process to see
    <root>/tmp, <root>/locks

So nginx serves hits from ``cache/download``, ``GOPROXY=file://<root>/cache/download`` works, and
any module cache can seed it. A file is written in tmp, flushed, and renamed: a reader or a crash
sees the whole file or none.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from typing import TYPE_CHECKING

from modhaven import modpath, semver
from modhaven.store import files
from modhaven.store.base import Mutable, Stored, Usage
from modhaven.store.files import store_error
from modhaven.store.pins import Pins
from modhaven.store.purges import Purges
from modhaven.store.quarantine import Quarantine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

# So much must be writable for the store to be well; an empty file also fits on a full disk.
_PROBE = bytes(8192)
_LIST_SECONDS = 10.0


class DiskStore:
    """A store below ``root``, safe for many threads and processes of one host."""

    def __init__(
        self, root: Path, *, min_free_bytes: int, quarantine_max_bytes: int = 1 << 30
    ) -> None:
        """Create the folders; StoreError when that fails."""
        self.root = root
        self._min_free_bytes = min_free_bytes
        self._download = root / "cache" / "download"
        self._mutable = root / "mutable"
        self._unverified = root / "unverified"
        self._locks = root / "locks"
        self._writer = files.Writer(root / "tmp")
        self.pins = Pins(root / "pins", self._writer)
        self.purges = Purges(root, self._writer)
        self._quarantine = Quarantine(
            root / "quarantine", self._writer, max_bytes=quarantine_max_bytes
        )
        try:
            for folder in (self._download, self._mutable, self._locks):
                folder.mkdir(parents=True, exist_ok=True)
            for name in ("tmp", "quarantine"):
                (root / name).mkdir(exist_ok=True)
            self._writer.remove_leftovers()
        except OSError as error:
            raise store_error(error) from error

    def find(self, key: str) -> Stored | None:
        """Return the published file, or None."""
        path = self._download / key
        try:
            size = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise store_error(error) from error
        return Stored(path=path, size=size, unverified=(self._unverified / key).exists())

    @contextlib.contextmanager
    def stage(self, key: str) -> Iterator[DiskStaged]:
        """Open a temporary file for ``key``; what is unpublished at the end is removed."""
        since = self.purges.last(key)
        try:
            path, file = self._writer.open_temporary()
        except OSError as error:
            raise store_error(error) from error
        try:
            with files.disk_errors(), file:
                yield DiskStaged(self, key, path, file, since=since)
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
            raise store_error(error) from error
        except (ValueError, KeyError, TypeError):
            # Written by nothing of ours: as good as absent, and overwritten by the next answer.
            return None

    def put_mutable(self, key: str, body: bytes, source: str, *, since: int) -> None:
        """Keep an answer with the time of now; StoreError, PurgedError."""
        head = json.dumps({"fetched": time.time(), "source": source}).encode()
        with self.purges.unchanged(key, since):
            self._writer.write(self._mutable / key, head + b"\n" + body, durable=False)

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
        """Hold ``key`` across processes; LockTimeoutError, StoreError. It dies with its holder."""
        with files.hold(self._locks / "keys", key, wait_seconds=wait_seconds):
            yield

    def published(self) -> Iterator[str]:
        """Yield the keys of the modules' files; the checksum databases' are not among them."""
        for key in files.names_below(self._download):
            module, found, name = key.rpartition("/@v/")
            if (
                found
                and not module.startswith("sumdb/")
                and name.endswith((".info", ".mod", ".zip"))
            ):
                yield key

    def unverified(self) -> Iterator[str]:
        """Yield the keys that are marked as unverified."""
        return files.names_below(self._unverified)

    def mark(self, key: str, *, unverified: bool) -> None:
        """Set or remove the marker of ``key``, whose lock the caller holds; StoreError."""
        marker = self._unverified / key
        try:
            if not unverified:
                marker.unlink(missing_ok=True)
            elif not marker.exists():
                self._writer.write(marker, b"")
        except OSError as error:
            raise store_error(error) from error

    def withdraw(self, key: str, reason: str) -> Path:
        """Move a published file to quarantine; its version leaves the list too. StoreError.

        The caller holds the key's lock. The marker goes last: after a crash it is done again.
        """
        escaped_module, _, name = key.rpartition("/@v/")
        path = self._download / key
        try:
            info = self._download / escaped_module / "@v" / f"{name.rpartition('.')[0]}.info"
            if info != path:
                info.unlink(missing_ok=True)
                self.refresh_list(escaped_module)
            kept = self._quarantine.take(path, reason)
        except OSError as error:
            raise store_error(error) from error
        if info == path:
            self.refresh_list(escaped_module)
        self.mark(key, unverified=False)
        return kept

    def folder(self, key: str) -> Path:
        """Return where below the published files ``key`` is or would be."""
        return self._download / key

    def usage(self) -> Usage:
        """Count what is published, checksum databases included; takes a while. StoreError."""
        count = size = 0
        try:
            for key in files.names_below(self._download):
                # Between listing and looking, a file may be withdrawn.
                with contextlib.suppress(FileNotFoundError):
                    size += (self._download / key).stat().st_size
                    count += 1
        except OSError as error:
            raise store_error(error) from error
        unverified = sum(1 for _ in self.unverified())
        return Usage(files=count, size=size, unverified=unverified)

    def free_bytes(self) -> int:
        """Return the bytes free on the store's file system; 0 where that cannot be found out."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError:
            return 0

    def problem(self) -> str | None:
        """Return why the store cannot take files now, as a sentence, or None."""
        try:
            path, file = self._writer.open_temporary()
            try:
                with file:
                    file.write(_PROBE)
            finally:
                path.unlink()
            free = shutil.disk_usage(self.root).free
        except OSError as error:
            return str(store_error(error))
        if free < self._min_free_bytes:
            return (
                f"{self.root} has {free} bytes free, less than store.min_free_bytes "
                f"({self._min_free_bytes}): free some space"
            )
        return None

    def _publish(self, staged: DiskStaged, *, unverified: bool) -> Stored:
        target = self._download / staged.key
        try:
            staged.file.flush()
            os.fsync(staged.file.fileno())
            size = os.fstat(staged.file.fileno()).st_size
            with self.purges.unchanged(staged.key, staged.since):
                if unverified:
                    self.mark(staged.key, unverified=True)
                # Its bytes are on disk; that its name is too is not waited for: what is lost with
                # the power is fetched again.
                files.rename(staged.path, target, durable=False)
        except OSError as error:
            raise store_error(error) from error
        if not unverified:
            self.mark(staged.key, unverified=False)
        escaped_module, _, name = staged.key.rpartition("/@v/")
        if name.endswith(".info") and not semver.is_pseudo(name.removesuffix(".info")):
            self.refresh_list(escaped_module)
        return Stored(path=target, size=size, unverified=unverified)

    def refresh_list(self, escaped_module: str) -> None:
        """Make @v/list, for GOPROXY=file://, say the versions held, no pseudo-versions."""
        key = f"{escaped_module}/@v/list"
        with self.lock(key, wait_seconds=_LIST_SECONDS):
            tagged = [v for v in self.versions(escaped_module) if not semver.is_pseudo(v)]
            tagged.sort(key=semver.sort_key)
            body = "".join(f"{v}\n" for v in tagged).encode()
            path = self._download / key
            if not path.is_file() or path.read_bytes() != body:
                self._writer.write(path, body, durable=False)

    def _move_to_quarantine(self, staged: DiskStaged, reason: str) -> Path:
        with files.disk_errors():
            staged.file.flush()
        return self._quarantine.take(staged.path, reason)


class DiskStaged:
    """A temporary file of a DiskStore."""

    def __init__(
        self, store: DiskStore, key: str, path: Path, file: BinaryIO, *, since: int
    ) -> None:
        """Bind the open ``file`` at ``path`` to the key it may be published under.

        ``since`` is the last purge of the key.
        """
        self._store = store
        self.key = key
        self.path = path
        self.file = file
        self.since = since

    def publish(self, *, unverified: bool = False) -> Stored:
        """Make it durable and visible under its key, all or nothing; StoreError, PurgedError."""
        return self._store._publish(self, unverified=unverified)

    def quarantine(self, reason: str) -> Path:
        """Keep it out of reach for an operator to look at, with the reason beside it."""
        return self._store._move_to_quarantine(self, reason)
