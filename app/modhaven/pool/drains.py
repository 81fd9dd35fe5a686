"""Which backends people have taken out: a file each, so that a restart forgets none."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modhaven.pool import files

if TYPE_CHECKING:
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
        """Return the drained backends by name. OSError."""
        try:
            paths = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return {}
        found = {}
        for path in paths:
            # Somebody may let it in again just now.
            with contextlib.suppress(FileNotFoundError):
                text = path.read_text(encoding="utf-8", errors="replace")
                reason = "".join(filter(str.isprintable, text.partition("\n")[0]))
                found[path.name] = Drain(reason=reason, since=path.stat().st_mtime)
        return found

    def add(self, name: str, reason: str) -> bool:
        """Take a backend out, durably; False when it was out already. OSError."""
        path = self._folder / name
        if path.exists():
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        files.replace(path, f"{' '.join(reason.split())}\n", durable=True)
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
