"""Files that failed verification, kept for the operator: each once, and never too many.

<quarantine>/<sha256 of the bytes>
<quarantine>/<sha256 of the bytes>.reason    a line for each place they came from, newest last
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from modhaven.store import files

if TYPE_CHECKING:
    from pathlib import Path

# Enough to see a pattern; a mirror that answers a login page to everything must not flood it.
_MAX_FILES = 1000
_MAX_REASONS = 20


class Quarantine:
    """A folder of at most ``max_bytes`` and ``max_files``; the oldest go first."""

    def __init__(
        self, folder: Path, writer: files.Writer, *, max_bytes: int, max_files: int = _MAX_FILES
    ) -> None:
        """Keep files in ``folder``, which exists."""
        self._folder = folder
        self._writer = writer
        self._max_bytes = max_bytes
        self._max_files = max_files

    def take(self, path: Path, reason: str) -> Path:
        """Move the file at ``path`` in, and ``reason`` (a line) beside it; return where it is.

        Of a file larger than the whole quarantine only the reason is kept. StoreError.
        """
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = os.fstat(file.fileno()).st_size
            target = self._folder / digest
            self._note(target, reason)
            if size > self._max_bytes:
                path.unlink()
            else:
                files.rename(path, target)
                # Its age counts from when it was met last.
                os.utime(target)
            self._trim()
        except OSError as error:
            raise files.store_error(error) from error
        return target

    def _note(self, target: Path, reason: str) -> None:
        note = target.with_name(f"{target.name}.reason")
        known: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            known = note.read_text(encoding="utf-8").splitlines()
        line = " ".join(reason.split())
        lines = [*(old for old in known if old != line), line][-_MAX_REASONS:]
        self._writer.write(note, "".join(f"{kept}\n" for kept in lines).encode())

    def _trim(self) -> None:
        """Remove the oldest until what is left is within both bounds."""
        notes = []
        for note in self._folder.glob("*.reason"):
            # Another process may be trimming too.
            with contextlib.suppress(FileNotFoundError):
                notes.append((note.stat().st_mtime_ns, note))
        total = 0
        for position, (_, note) in enumerate(sorted(notes, reverse=True)):
            body = note.with_name(note.name.removesuffix(".reason"))
            size = 0
            with contextlib.suppress(FileNotFoundError):
                size = body.stat().st_size
            total += size
            if position >= self._max_files or total > self._max_bytes:
                total -= size
                body.unlink(missing_ok=True)
                note.unlink(missing_ok=True)
