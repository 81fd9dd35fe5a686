"""What a checksum database client keeps: the latest tree head, tiles, lookups; here or on disk.

Only what has been verified is ever saved. The layout on disk is that of the go command's cache
(``GOMODCACHE/cache/download/sumdb/<name>``), so that a web server can serve lookups and full tiles
from it, but of partial tiles only the widest is kept: every narrower one is a prefix of it.
"""

import contextlib
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from modhaven.tiles import Tile
from modhaven.tlog import HASH_SIZE


class State(Protocol):
    """Storage of a client; safe for use by several threads. Failing to save may raise OSError."""

    def load_head(self) -> bytes:
        """Return the latest signed tree head, empty if there is none yet."""

    def swap_head(self, old: bytes, new: bytes) -> bool:
        """Replace the tree head ``old`` by ``new``; False if it is not ``old`` any more."""

    def load_tile(self, tile: Tile) -> bytes | None:
        """Return the first ``tile.width`` hashes of that tile, None if so many are not there."""

    def save_tile(self, tile: Tile, data: bytes) -> None:
        """Keep a tile in place of what is there, unless that starts with the same data."""

    def load(self, name: str) -> bytes | None:
        """Return what was saved under ``name``: ``lookup/<module>@<version>``, or ``fork``."""

    def save(self, name: str, data: bytes) -> None:
        """Keep ``data`` under ``name``."""


class MemoryState:
    """State that ends with the process: for tests and one-off checks."""

    def __init__(self, head: bytes = b"") -> None:
        """Start from a signed tree head, or from nothing."""
        self._head = head
        self._tiles: dict[Tile, bytes] = {}
        self._files: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def load_head(self) -> bytes:
        """See State."""
        return self._head

    def swap_head(self, old: bytes, new: bytes) -> bool:
        """See State."""
        with self._lock:
            if self._head != old:
                return False
            self._head = new
            return True

    def load_tile(self, tile: Tile) -> bytes | None:
        """See State."""
        data = self._tiles.get(tile.full, b"")[: tile.width * HASH_SIZE]
        return data if len(data) == tile.width * HASH_SIZE else None

    def save_tile(self, tile: Tile, data: bytes) -> None:
        """See State."""
        with self._lock:
            if self._tiles.get(tile.full, b"")[: len(data)] != data:
                self._tiles[tile.full] = data

    def load(self, name: str) -> bytes | None:
        """See State."""
        return self._files.get(name)

    def save(self, name: str, data: bytes) -> None:
        """See State."""
        with self._lock:
            self._files[name] = data


class DiskState:
    """State in a folder, safe for several processes: whole files are replaced, heads locked."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Keep everything in ``folder``, one folder for each database."""
        self._folder = Path(folder)

    def load_head(self) -> bytes:
        """See State."""
        return _read(self._folder / "latest") or b""

    def swap_head(self, old: bytes, new: bytes) -> bool:
        """See State."""
        with self._locked():
            if self.load_head() != old:
                return False
            self._write("latest", new, durable=True)
            return True

    def load_tile(self, tile: Tile) -> bytes | None:
        """See State."""
        data = _read(self._folder / tile.full.path)
        if data is None:
            width = max(self._partial_widths(tile), default=0)
            data = _read(self._partial_folder(tile) / str(width)) if width >= tile.width else None
        size = tile.width * HASH_SIZE
        return data[:size] if data is not None and len(data) >= size else None

    def save_tile(self, tile: Tile, data: bytes) -> None:
        """See State."""
        if self.load_tile(tile) == data:
            return
        # What else is there of this place is narrower, or damaged.
        self._write(tile.path, data, durable=tile.is_full)
        if tile.is_full:
            shutil.rmtree(self._partial_folder(tile), ignore_errors=True)
            return
        (self._folder / tile.full.path).unlink(missing_ok=True)
        for width in self._partial_widths(tile):
            if width != tile.width:
                (self._partial_folder(tile) / str(width)).unlink(missing_ok=True)

    def load(self, name: str) -> bytes | None:
        """See State."""
        return _read(self._folder / name)

    def save(self, name: str, data: bytes) -> None:
        """See State."""
        self._write(name, data, durable=name == "fork")

    def _partial_folder(self, tile: Tile) -> Path:
        return self._folder / f"{tile.full.path}.p"

    def _partial_widths(self, tile: Tile) -> list[int]:
        try:
            names = [path.name for path in self._partial_folder(tile).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [int(name) for name in names if name.isdecimal()]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Replace a file by way of a temporary one; readers see the old or the new bytes.

        Lookups, and tiles that will grow, need not be ``durable``: after a power cut the last ones
        may be empty, which is as good as absent.
        """
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
