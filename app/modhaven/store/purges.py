"""What has been purged, for all processes: what was asked for before a purge counts for nothing.

A purge is written down in the file ``purges`` before anything is removed. Whoever asks an upstream
notes the number of the last purge of the key first (``last``), and keeps what comes back only if
that is still the last one (``unchanged``). So no fetch that was under way brings back what a purge
has removed, and no worker goes on with what it remembers from before.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from modhaven.selection import Selection
from modhaven.store.base import PurgedError
from modhaven.store.files import store_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from modhaven.store.files import Writer

log = logging.getLogger(__name__)
# Each is compared with every path the app is asked for.
_MOST = 200


class Purges:
    """The purges of a store, the last hundred or more of them one by one."""

    def __init__(self, root: Path, writer: Writer) -> None:
        """Keep them in ``root``/purges."""
        self._path = root / "purges"
        self._locks = root / "locks"
        self._writer = writer
        self._guard = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        # The number of the last purge that is no longer kept by itself: all count as of that one.
        self._base = 0
        self._kept: list[tuple[int, Selection]] = []

    def last(self, key: str, *, negative: bool = False) -> int:
        """Return the number of the last purge that ``key`` belongs to; 0 for none. StoreError.

        ``negative``: or of the last purge of every "not found".
        """
        base, kept = self._read()
        for number, selection in reversed(kept):
            if selection.covers(key) or (negative and selection.negative):
                return number
        return base

    @contextlib.contextmanager
    def unchanged(self, key: str, since: int) -> Iterator[None]:
        """Keep purges waiting for this block, in which ``key`` becomes visible; StoreError.

        Raises PurgedError when it was purged after ``since``, which ``last`` has returned.
        """
        with self._locked(fcntl.LOCK_SH):
            if self.last(key) != since:
                raise PurgedError(f"{key} was purged while it was being fetched")
            yield

    def add(self, selection: Selection) -> None:
        """Write a purge down: from now on nothing from before is published. StoreError."""
        with self._locked(fcntl.LOCK_EX):
            base, kept = self._read()
            newest = kept[-1][0] if kept else base
            # Of the clock, so that a number never comes back, even if the file is lost.
            kept = [*kept, (max(newest + 1, time.time_ns()), selection)]
            if len(kept) > _MOST:
                base, kept = kept[-_MOST // 2 - 1][0], kept[-_MOST // 2 :]
            data = {
                "base": base,
                "purges": [{"number": n, "what": what.as_mapping()} for n, what in kept],
            }
            self._writer.write(self._path, json.dumps(data).encode(), durable=False)

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        try:
            descriptor = os.open(self._locks, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise store_error(error) from error
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> tuple[int, list[tuple[int, Selection]]]:
        with self._guard:
            try:
                seen = self._path.stat()
                if (seen.st_mtime_ns, seen.st_ino) != self._stamp:
                    with self._path.open("rb") as file:
                        seen = os.fstat(file.fileno())
                        self._base, self._kept = _parse(self._path, file.read())
                    self._stamp = seen.st_mtime_ns, seen.st_ino
            except FileNotFoundError:
                self._stamp, self._base, self._kept = None, 0, []
            except OSError as error:
                raise store_error(error) from error
            return self._base, self._kept


def _parse(path: Path, text: bytes) -> tuple[int, list[tuple[int, Selection]]]:
    try:
        data = json.loads(text)
        kept = [
            (int(entry["number"]), Selection.from_mapping(entry["what"]))
            for entry in data["purges"]
        ]
        return int(data["base"]), kept
    except (ValueError, KeyError, TypeError, AttributeError):
        # After a power cut it may be empty; what was remembered or under way then is gone as well.
        log.warning("%s is damaged, and as good as absent; the next purge writes it anew", path)
        return 0, []
