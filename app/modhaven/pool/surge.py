"""Whether more is asked than usual: connections now against a moving baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modhaven.pool.settings import Surge

# Connections come and go in bursts; what counts is what lasts some seconds.
_NOW_SECONDS = 5.0
# A surge must not become what is usual while it lasts, but what stays for hours is no surge.
_SURGE_WINDOWS = 30


class Demand:
    """The connections of one edge over time; moments are seconds on a monotonic clock.

    ``bounds`` may be replaced at any time: what is usual stays known.
    """

    def __init__(
        self, bounds: Surge, *, now: float, baseline: float | None = None, surging: bool = False
    ) -> None:
        """Go on from a baseline; without one the first figure is it."""
        self.bounds = bounds
        self._last = now
        self._high_at = now if surging else -math.inf
        self.current = baseline
        self.baseline = baseline or 0.0
        self.surging = surging

    def note(self, connections: int, now: float) -> bool:
        """Take a figure; tell whether a surge begins or ends with it."""
        passed = max(0.0, now - self._last)
        self._last = now
        if self.current is None:
            self.current = self.baseline = float(connections)
            return False
        self.current += (connections - self.current) * _share(passed, _NOW_SECONDS)
        usual = self.baseline * (1 + self.bounds.percent / 100)
        high = self.current > max(usual, self.bounds.minimum_connections)
        if high:
            self._high_at = now
        windows = _SURGE_WINDOWS if high or self.surging else 1
        weight = _share(passed, self.bounds.baseline_seconds * windows)
        self.baseline += (connections - self.baseline) * weight
        before = self.surging
        self.surging = high or (before and now - self._high_at < self.bounds.quiet_seconds)
        return self.surging != before


def _share(passed: float, window: float) -> float:
    """Return the weight of a new figure in an exponential mean over ``window`` seconds."""
    return 1 - math.exp(-passed / window)
