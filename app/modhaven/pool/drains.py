"""Which backends people have taken out: a file each, so that a restart forgets none."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modhaven.pool import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Why, and since when (seconds since the epoch)."""

    reason: str
    since: float


class Drains:
    """Below ``folder``, ``<backend>`` holds the reason.

    That of a backend which is in no pool any more is harmless; who comes back is still drained.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder, which may be missing: then nobody is drained."""
        self._folder = folder

    def all(self) -> dict[str, Drain]:
        """Return the drained backends by name; whose file cannot be read is one too. OSError."""
        try:
            paths = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return {}
        found = {}
        for path in paths:
            # Somebody may let it in again just now, or have left a folder here.
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    found[path.name] = Drain(reason=_reason(path), since=path.stat().st_mtime)
        return found

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let nobody else in who calls this, in any process, until it is left. OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def add(self, name: str, reason: str) -> bool:
        """Take a backend out, durably; False when it was out already. OSError."""
        path = self._folder / name
        if path.is_file():
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        files.replace(path, f"{normal(reason)}\n", durable=True)
        return True

    def remove(self, name: str) -> bool:
        """Let a backend in again; False when it was not out. OSError."""
        # Not by the name alone, which is also a path.
        if name not in self.all():
            return False
        try:
            (self._folder / name).unlink()
        except FileNotFoundError:
            return False
        return True


def normal(reason: str) -> str:
    """Return a reason as it is kept: one line of words that a terminal can be shown."""
    words = ("".join(filter(str.isprintable, word)) for word in reason.split())
    return " ".join(filter(None, words))


def _reason(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"why cannot be read: {error.strerror}"
    return normal(text.partition("\n")[0])
