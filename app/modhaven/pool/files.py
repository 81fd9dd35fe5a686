"""Files that others read while they are replaced."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Stamp = tuple[int, int, int]


def replace(path: Path, text: str, *, durable: bool = False) -> None:
    """Replace ``path`` atomically; ``durable``: it survives a power cut as well.

    OSError, which names ``path``; nothing is left beside it then.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        # What was full or not allowed names no file, or one that nobody knows.
        error.filename = str(path)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def stamp(path: Path) -> Stamp | None:
    """Return what differs when the file was written or replaced; None where it is not. OSError."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    return seen.st_mtime_ns, seen.st_ino, seen.st_size
