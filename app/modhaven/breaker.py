"""A circuit breaker: an upstream that keeps failing is left out until a probe finds it well."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from modhaven.board import Place


class Breaker:
    """Opens after ``failures`` in a row, or at once on a timeout; tells when a probe is due.

    A timeout opens it at once because it is the costly failure: every request that tried the same
    black hole would wait as long. A user's request is never the probe, unless ``probed`` is off.
    """

    def __init__(
        self,
        *,
        failures: int,
        open_seconds: float,
        probed: bool = True,
        place: Place | None = None,
        on_change: Callable[[bool], object] | None = None,
    ) -> None:
        """Start closed. ``open_seconds`` is the pause between two probes.

        At ``place`` the other workers are told of a timeout, and open theirs, too. ``on_change``
        hears whether it is open, now and whenever that changes.
        """
        self._limit = failures
        self._open_seconds = open_seconds
        self._probed = probed
        self._place = place
        self._guard = threading.Lock()
        self._failures = 0
        self._timeouts = 0
        self._open = False
        self._opened_at = 0.0
        self._reason = ""
        self._probe_at = 0.0
        self._on_change = on_change
        if on_change is not None:
            on_change(False)  # noqa: FBT003 - a gauge's set

    def __str__(self) -> str:
        """Say how it stands, for an operator."""
        if not self.is_open:
            return "asked"
        probe = f"next probe in {self.seconds_to_probe:.0f} s" if self._probed else ""
        since = f"left out for {time.monotonic() - self._opened_at:.0f} s"
        return ", ".join(filter(None, (since, self._reason, probe)))

    @property
    def is_open(self) -> bool:
        """Tell whether requests should skip this upstream."""
        if self._place is not None:
            with self._guard:
                if self._place.news() and not self._open:
                    self._turn(open_=True, reason="timed out in another worker")
                    self._probe_at = time.monotonic() + (0 if self._probed else self._open_seconds)
        return self._open

    def lets_through(self) -> bool:
        """Tell whether a request may be sent; where nothing probes, one per pause is the probe."""
        return not self.is_open or (not self._probed and self.claim_probe())

    def succeeded(self) -> None:
        """Note an answer, also one that says not found: the upstream is well."""
        with self._guard:
            self._failures = 0
            self._timeouts = 0
            self._turn(open_=False)

    def found_well(self) -> None:
        """Note a good probe; what it answers is no proof that it gives modules, too."""
        with self._guard:
            self._failures = 0
            self._turn(open_=False)

    def failed(self, reason: str = "", *, timed_out: bool) -> None:
        """Note a request that got no answer of use, and for what ``reason``."""
        with self._guard:
            self._failures += 1
            self._timeouts += timed_out
            if timed_out and self._place is not None:
                self._place.write()
            if not self._open and (timed_out or self._failures >= self._limit):
                self._turn(open_=True, reason=reason)
                # One slow answer is no black hole: after a timeout the first probe is due at once.
                # Where probes go well and requests time out, it stays out for a while.
                at_once = timed_out and self._probed and self._timeouts <= self._limit
                self._probe_at = time.monotonic() + (0 if at_once else self._open_seconds)

    @property
    def seconds_to_probe(self) -> float:
        """Seconds until a probe is due."""
        return max(0.0, self._probe_at - time.monotonic())

    def claim_probe(self) -> bool:
        """Tell one caller, once per pause, that it should probe now."""
        with self._guard:
            now = time.monotonic()
            if not self._open or now < self._probe_at:
                return False
            self._probe_at = now + self._open_seconds
            return True

    def _turn(self, *, open_: bool, reason: str = "") -> None:
        """Open or close; the caller holds the guard."""
        if open_ == self._open:
            return
        self._open = open_
        self._reason = reason
        self._opened_at = time.monotonic()
        if self._on_change is not None:
            self._on_change(open_)
