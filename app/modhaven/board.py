"""What the worker processes of one server tell each other: when an upstream last timed out.

Shared memory, made before the workers are forked; each upstream has a place by its address. Two
that share a place by chance cost each other a probe, no more.
"""

from __future__ import annotations

import mmap
import time
import zlib

_PLACES = 1024
_BYTES = 8


class Board:
    """Moments of CLOCK_MONOTONIC, which all processes of a host agree on."""

    def __init__(self) -> None:
        """Start with no timeouts."""
        self._moments = memoryview(mmap.mmap(-1, _PLACES * _BYTES)).cast("d")

    def place(self, address: str) -> Place:
        """Return the place of the upstream at ``address``."""
        return Place(self._moments, zlib.crc32(address.encode()) % _PLACES)


class Place:
    """One upstream's last timeout, in any worker."""

    def __init__(self, moments: memoryview[float], number: int) -> None:
        """Ignore what was written before."""
        self._moments = moments
        self._number = number
        self._seen = moments[number]

    def write(self) -> None:
        """Tell the others that it timed out now."""
        self._seen = self._moments[self._number] = time.monotonic()

    def news(self) -> bool:
        """Tell, once, that another worker has written."""
        latest = self._moments[self._number]
        new, self._seen = latest != self._seen, latest
        return new
