"""What a purge has removed, or would: counted by place, for people and for programs."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_PROGRESS_SECONDS = 5.0


@dataclass(slots=True, kw_only=True)
class Place:
    """One place: ``where`` it is, how many files of how many bytes, and a note for people."""

    where: str
    files: int = 0
    size: int = 0
    note: str = ""


@dataclass(slots=True, kw_only=True)
class Removed:
    """All places of a host; with ``dry_run`` nothing is removed, and every file is listed."""

    dry_run: bool
    places: list[Place] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        """How many files, in all places."""
        return sum(place.files for place in self.places)

    @property
    def size(self) -> int:
        """How many bytes they had."""
        return sum(place.size for place in self.places)

    def place(self, where: str, note: str = "") -> Place:
        """Begin another place."""
        self.places.append(Place(where=where, note=note))
        return self.places[-1]

    def take(self, place: Place, path: Path, name: str) -> bool:
        """Remove ``path``, called ``name`` in the list; tell whether it was there. OSError."""
        try:
            size = path.lstat().st_size
            if not self.dry_run:
                path.unlink()
        except FileNotFoundError:
            return False
        if self.dry_run:
            self.listed.append(f"{place.where}: {name}")
        place.files += 1
        place.size += size
        return True

    def as_mapping(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        places = [
            {"where": place.where, "files": place.files, "bytes": place.size}
            for place in self.places
        ]
        data = {"dry_run": self.dry_run, "files": self.files, "bytes": self.size, "places": places}
        return data | ({"would_remove": self.listed} if self.dry_run else {})

    def table(self) -> str:
        """Return it for people."""
        rows = [(place.where, place.files, place.size, place.note) for place in self.places]
        rows.append(("total", self.files, self.size, ""))
        width = max(len(where) for where, *_ in rows)
        lines = [f"{'where':<{width}}  {'files':>9}  {'bytes':>15}"]
        for where, files, size, note in rows:
            lines.append(f"{where:<{width}}  {files:>9}  {size:>15}  {note}".rstrip())
        return "\n".join([*self.listed, *lines]) + "\n"


class Progress:
    """Says every few seconds how far a long search has come, on standard error."""

    def __init__(self, where: str) -> None:
        """Begin with ``where``."""
        self._where = where
        self._said = time.monotonic()
        self._seen = 0

    def step(self, place: Place) -> None:
        """Count one file that was looked at."""
        self._seen += 1
        if time.monotonic() - self._said >= _PROGRESS_SECONDS:
            self._said = time.monotonic()
            line = f"{self._where}: {self._seen} files looked at, {place.files} found"
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - a command's output
