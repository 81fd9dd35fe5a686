"""One backend's health, from the answers to its probes: hysteresis, so that it does not flap."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modhaven.pool.probe import Answer
    from modhaven.pool.settings import Probe

# One that is overloaded says nothing either, for a while.
_GONE_TIMEOUTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of one backend; moments are seconds since the epoch.

    ``state`` is up, down, or joining when it was never ready yet. ``error`` is why it was last not
    ready, at ``error_at``. ``in_flight`` is how many requests it worked on at ``in_flight_at``,
    None where it did not say. ``address`` is where it was last ready, empty while it never was.
    ``silent_since`` is when the first of those probes ended that nobody has answered since, 0
    where the last was answered; ``gone``: so long, or so, that it works on nothing any more.
    """

    state: str = "joining"
    since: float = field(default_factory=time.time)
    error: str = ""
    error_at: float = 0.0
    in_flight: int | None = None
    in_flight_at: float = 0.0
    address: str = ""
    silent_since: float = 0.0
    gone: bool = False


class Health:
    """Turns answers into a state. ``seen`` may be read in any thread: it is replaced as a whole."""

    def __init__(self, probe: Probe, seen: Seen | None = None) -> None:
        """Start from what is known already, else as joining."""
        self._probe = probe
        self._guard = threading.Lock()
        self._good = 0
        self._bad = 0
        self.seen = seen or Seen()

    def note(self, answer: Answer) -> bool:
        """Take one answer; tell whether the backend came up or went down with it."""
        with self._guard:
            state = self._after(answer)
            now = time.time()
            before = self.seen
            silent_since = (before.silent_since or now) if answer.silent else 0.0
            long = _GONE_TIMEOUTS * self._probe.timeout_seconds
            seen = replace(
                before,
                in_flight=answer.in_flight,
                in_flight_at=answer.in_flight_at,
                address=answer.address or before.address,
                silent_since=silent_since,
                # Nor does one work on anything that was never let in.
                gone=state == "joining"
                or answer.refused
                or (answer.silent and now - silent_since >= long),
            )
            if answer.error:
                seen = replace(seen, error=answer.error, error_at=now)
            if state != before.state:
                seen = replace(seen, state=state, since=now)
            self.seen = seen
            return state != before.state

    @property
    def settled(self) -> bool:
        """Whether the last answer agrees with the state: the next probe has time."""
        return not (self._bad if self.seen.state == "up" else self._good)

    def _after(self, answer: Answer) -> str:
        state = self.seen.state
        if answer.error:
            self._good = 0
            self._bad += 1
            return "down" if state == "up" and self._bad >= self._probe.fall else state
        self._bad = 0
        self._good += 1
        # Who joins has nothing to make up for: its first good answer counts.
        return "up" if state == "joining" or self._good >= self._probe.rise else state
