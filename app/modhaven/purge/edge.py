"""An edge's part: the files of nginx's cache zones, found as nginx finds them.

nginx has no purge of its own, but takes a file that is gone for one it never had. A file is named
after the MD5 of its key, and the key is the decoded path (``proxy_cache_key $uri``); its head holds
the key and the answer's status line (ngx_http_file_cache_header_t). An answer that is still being
received lies beside it, with a number behind its name, and never becomes a file when that is gone.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modhaven.protocol import MAX_PATH
from modhaven.purge.removed import Progress
from modhaven.selection import CACHED_ONLY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modhaven.purge.removed import Removed
    from modhaven.selection import Selection

_ZONE = re.compile(r"^\s*proxy_cache_path\s+(?P<path>/[^\s;]+)(?P<options>[^;]*);", re.MULTILINE)
_LEVELS = re.compile(r"\blevels=([12](?::[12]){0,2})\b")
_FILE = re.compile(r"[0-9a-f]{32}(?:\.[0-9]{10})?")
# nginx's own part of the head is below 400 bytes, and a status line has few.
_HEAD_BYTES = 1024 + MAX_PATH
_HEAD = re.compile(rb"\nKEY: (?P<key>[^\n]*)\n(?:HTTP/[0-9.]+ (?P<status>[0-9]{3}))?")
_NOT_FOUND = frozenset({404, 410})


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A ``proxy_cache_path``; ``levels`` are the lengths of its folders' names."""

    path: Path
    levels: tuple[int, ...]

    @property
    def holds_versions_only(self) -> bool:
        """Whether what a version has here can be computed: no branches, no commits."""
        return self.path.name == "immutable"

    def file_of(self, key: str) -> Path:
        """Return where nginx keeps ``key``."""
        name = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
        folder, end = self.path, len(name)
        for length in self.levels:
            folder /= name[end - length : end]
            end -= length
        return folder / name


def zones(text: str) -> list[Zone]:
    """Return the cache zones that an nginx configuration defines."""
    found = []
    for match in _ZONE.finditer(text):
        levels = _LEVELS.search(match["options"])
        numbers = levels[1].split(":") if levels else []
        found.append(Zone(path=Path(match["path"]), levels=tuple(map(int, numbers))))
    return found


def purge(zone: Zone, selection: Selection, removed: Removed) -> None:
    """Remove what ``zone`` keeps of ``selection``; OSError."""
    where = f"edge: {zone.path.name}"
    place = removed.place(where)
    if selection.version and zone.holds_versions_only:
        for key in (*selection.files, *selection.namesakes):
            for form in ("/", f"/{CACHED_ONLY}"):
                file = zone.file_of(f"{form}{key}")
                for path in (file, *file.parent.glob(f"{file.name}.*")):
                    removed.take(place, path, f"{form}{key}")
        return
    progress = Progress(where)
    for path in _files(zone.path):
        head = _head(path)
        progress.step(place)
        if head is None:
            continue
        key, status = head
        wanted = status in _NOT_FOUND if selection.negative else selection.covers(key[1:])
        if wanted:
            removed.take(place, path, key)


def _files(folder: Path) -> Iterator[Path]:
    for at, _, names in os.walk(folder, onerror=_raise_unless_gone):
        for name in names:
            if _FILE.fullmatch(name):
                yield Path(at, name)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _head(path: Path) -> tuple[str, int] | None:
    """Return the key and the status of a cached answer; None where it is gone, or has no head yet.

    What nginx drops while this looks is gone as well.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        match = _HEAD.search(os.read(descriptor, _HEAD_BYTES))
    finally:
        os.close(descriptor)
    if match is None:
        return None
    return match["key"].decode("utf-8", "surrogateescape"), int(match["status"] or 0)
