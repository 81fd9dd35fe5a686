"""Answers of "not found", remembered briefly in memory, so that probes for parents cost nothing."""

from __future__ import annotations

import threading
import time
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """At most ``entries`` values, each for ``seconds``; the oldest leave first."""

    def __init__(self, *, seconds: float, entries: int = 20_000) -> None:
        """Start empty."""
        self._seconds = seconds
        self._entries = entries
        self._guard = threading.Lock()
        self._values: dict[str, tuple[float, T]] = {}

    def get(self, key: str) -> T | None:
        """Return the value put for ``key`` less than ``seconds`` ago."""
        with self._guard:
            entry = self._values.get(key)
            return entry[1] if entry and entry[0] > time.monotonic() else None

    def put(self, key: str, value: T) -> None:
        """Remember ``value`` from now."""
        with self._guard:
            self._values.pop(key, None)
            while len(self._values) >= self._entries:
                del self._values[next(iter(self._values))]
            self._values[key] = (time.monotonic() + self._seconds, value)
