"""The repositories that go commands have cloned, shared by all of them: GOMODCACHE/cache/vcs.

The layout is the go command's (cmd/go/internal/modfetch/codehost, WorkDir): for each repository a
bare clone ``<id>/``, ``<id>.info`` and ``<id>.lock``, which it holds while it writes. We set the
time of ``<id>.info`` when a call begins to use it, which the go command never does.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)
_ID = re.compile(r"[0-9a-f]{64}")
# So that finding their sizes stays a matter of seconds, however small they are.
_MAX_REPOSITORIES = 10_000
_TRIM_SECONDS = 60.0
_LOCK_LEFTOVER_SECONDS = 86400.0
_LOCK_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clone:
    id: str
    used: float
    size: int


class Repositories:
    """The clones below ``folder``, for all workers of a host."""

    def __init__(self, folder: Path, *, max_bytes: int, busy_seconds: float) -> None:
        """Keep them below ``max_bytes``; what was used ``busy_seconds`` ago may still be in use."""
        self.folder = folder
        self._max_bytes = max_bytes
        self._busy_seconds = busy_seconds
        self._sizes: dict[str, tuple[float, int]] = {}

    def link(self, target: Path) -> None:
        """Make ``target``, a call's ``cache/vcs``, these repositories; OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target.symlink_to(self.folder)

    def use(self, ident: str) -> None:
        """Note that a call uses a repository now."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.folder / f"{ident}.info")

    def remove(self, ids: Iterable[str], *, seconds: float) -> bool:
        """Remove damaged clones; tell whether each could be locked within ``seconds``; OSError."""
        end = time.monotonic() + seconds
        for ident in ids:
            while not self._remove(ident):
                if time.monotonic() >= end:
                    return False
                # flock(2) has no bound of its own.
                time.sleep(_LOCK_POLL_SECONDS)
        return True

    def trim_if_due(self) -> None:
        """Trim in the background, at most once a minute on this host."""
        stamp = self.folder / "trimmed"
        try:
            due = time.time() - stamp.stat().st_mtime >= _TRIM_SECONDS
        except FileNotFoundError:
            due = self.folder.is_dir()
        if due:
            stamp.touch()
            threading.Thread(target=self._trim_and_tell, daemon=True).start()

    def trim(self) -> None:
        """Remove the clones that were not used for longest, until the rest is small enough.

        None that a call may still be using, and none that a go command has locked. OSError.
        """
        clones = sorted(self._clones(), key=lambda clone: clone.used)
        total, count = sum(clone.size for clone in clones), len(clones)
        for clone in clones:
            if total <= self._max_bytes and count <= _MAX_REPOSITORIES:
                break
            if time.time() - clone.used > self._busy_seconds and self._remove(clone.id):
                total, count = total - clone.size, count - 1
        self._remove_locks()

    def _trim_and_tell(self) -> None:
        try:
            self.trim()
        except OSError:
            log.exception("the repositories in %s cannot be trimmed", self.folder)

    def _clones(self) -> Iterator[_Clone]:
        before, self._sizes = self._sizes, {}
        for entry in list(os.scandir(self.folder)):
            if not _ID.fullmatch(entry.name):
                continue
            try:
                used = (self.folder / f"{entry.name}.info").stat().st_mtime
            except FileNotFoundError:
                # The go command writes it last, and begins anew where it is not there.
                used = entry.stat().st_mtime
            known = before.get(entry.name)
            size = known[1] if known is not None and known[0] == used else _size(entry.path)
            if time.time() - used > self._busy_seconds:
                self._sizes[entry.name] = (used, size)
            yield _Clone(id=entry.name, used=used, size=size)

    def _remove(self, ident: str) -> bool:
        """Remove one clone, unless a go command holds its lock."""
        descriptor = os.open(
            self.folder / f"{ident}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            # First what says that the clone is whole.
            (self.folder / f"{ident}.info").unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.folder / ident)
            return True
        finally:
            os.close(descriptor)

    def _remove_locks(self) -> None:
        oldest = time.time() - _LOCK_LEFTOVER_SECONDS
        for lock in self.folder.glob("*.lock"):
            with contextlib.suppress(FileNotFoundError):
                if not lock.with_suffix("").exists() and lock.stat().st_mtime < oldest:
                    lock.unlink()


def _size(folder: str) -> int:
    """Return the bytes on disk below ``folder``; what goes meanwhile may or may not count."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(f"{at}/{name}").st_blocks * 512
    return total
