"""One backend's health, from the answers to its probes: hysteresis, so that it does not flap."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modhaven.pool.settings import Probe


class Health:
    """What is known of one backend. A new one is not ready until it has shown so."""

    def __init__(self, probe: Probe, *, known_up: bool = False) -> None:
        """Start as joining, or as up where nginx asks it already (``known_up``)."""
        self._probe = probe
        self._guard = threading.Lock()
        self._good = 0
        self._bad = 0
        self.up = known_up
        self.joined = known_up
        self.since = time.time()
        self.error = ""
        self.in_flight: int | None = None

    def good(self, in_flight: int | None) -> bool:
        """Note that it is ready, and how many requests it works on; tell whether it came up."""
        with self._guard:
            self._bad = 0
            self._good += 1
            self.in_flight = in_flight
            # Who joins has nothing to make up for: its first good answer counts.
            if self.up or (self.joined and self._good < self._probe.rise):
                return False
            self._turn(up=True, error="")
            self.joined = True
            return True

    def bad(self, error: str) -> bool:
        """Note that it is not ready, and why; tell whether it went down."""
        with self._guard:
            self._good = 0
            self._bad += 1
            self.error = error
            self.in_flight = None
            if not self.up or self._bad < self._probe.fall:
                return False
            self._turn(up=False, error=error)
            return True

    def with_bounds(self, probe: Probe) -> Health:
        """Return this health under other bounds; counting begins anew."""
        with self._guard:
            other = Health(probe)
            other.up, other.joined, other.since = self.up, self.joined, self.since
            other.error, other.in_flight = self.error, self.in_flight
            return other

    @property
    def settled(self) -> bool:
        """Whether the last answer agrees with the state: the next probe has time."""
        return not (self._bad if self.up else self._good)

    @property
    def state(self) -> str:
        """``up``, ``down``, or ``joining`` when it was never ready yet."""
        if self.up:
            return "up"
        return "down" if self.joined else "joining"

    def _turn(self, *, up: bool, error: str) -> None:
        self.up = up
        self.error = error
        self.since = time.time()
