"""How quickly an upstream usually answers: the last answers' times."""

from __future__ import annotations

import threading
from collections import deque

_KEPT = 64
# Fewer answers than this are no habit.
_ENOUGH = 5
_SHARE = 0.95


class Latencies:
    """The seconds of the last answers to small requests."""

    def __init__(self) -> None:
        """Start with none."""
        self._guard = threading.Lock()
        self._seconds: deque[float] = deque(maxlen=_KEPT)

    def note(self, seconds: float) -> None:
        """Keep one answer's time."""
        with self._guard:
            self._seconds.append(seconds)

    @property
    def usual(self) -> float | None:
        """Seconds within which 95 of 100 answers came; None while there are too few to tell."""
        with self._guard:
            ordered = sorted(self._seconds)
        if len(ordered) < _ENOUGH:
            return None
        return ordered[min(len(ordered) - 1, int(len(ordered) * _SHARE))]
