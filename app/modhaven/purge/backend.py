"""A backend's part: files, marks, kept answers and, if wanted, pins; workers learn of it.

What stays: the quarantine, which nobody is served from and which is evidence; the checksum
databases' records, which are authenticated; the clones of ``direct``, which are asked for news.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modhaven.store import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from modhaven.purge.removed import Removed
    from modhaven.selection import Selection
    from modhaven.store.disk import DiskStore


def purge(store: DiskStore, selection: Selection, removed: Removed, *, pins: bool) -> None:
    """Remove what ``store`` keeps of ``selection``; OSError, StoreError, LockTimeoutError.

    When this returns, no worker of this host answers with what it knew before, and no fetch that
    was under way brings it back.
    """
    if not removed.dry_run:
        store.purges.add(selection)
    if selection.negative:
        forgotten = "would be" if removed.dry_run else "are"
        removed.place(
            "backend: memory", f'"not found" answers {forgotten} forgotten by all workers'
        )
        return
    held = _take("files", store.folder(""), selection, removed)
    if not removed.dry_run:
        # Their lists are gone: where a version is left, or has just come, there is one again.
        for module in sorted({key.rpartition("/@v/")[0] for key in held}):
            if store.versions(module):
                store.refresh_list(module)
    _take("answers", store.root / "mutable", selection, removed)
    # (!) After the files: nginx serves a file that has no mark.
    _take("marks", store.root / "unverified", selection, removed)
    if pins:
        _take("pins", store.root / "pins", selection, removed)
    elif kept := sum(1 for _ in _below(store.root / "pins", selection)):
        removed.place("backend: pins", f"{kept} kept; --pins removes them")


def _take(what: str, area: Path, selection: Selection, removed: Removed) -> list[str]:
    """Remove what ``area`` has of ``selection``; return the keys."""
    place = removed.place(f"backend: {what}")
    return [key for key in _below(area, selection) if removed.take(place, area / key, key)]


def _below(area: Path, selection: Selection) -> Iterator[str]:
    """Yield the keys in a part of the store that ``selection`` covers."""
    # A module's own names alone: below it there may be other modules.
    folders = [""] if selection.prefix else ["/@v"]
    keys = [f"{selection.folder}/@latest"] if not selection.prefix else []
    for folder in folders:
        below = f"{selection.folder}{folder}"
        keys += [f"{below}/{name}" for name in files.names_below(area / below)]
    for key in keys:
        if selection.covers(key) and (area / key).is_file():
            yield key
