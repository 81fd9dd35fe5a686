"""The chain: which upstream is asked next, and which failure is the one to report.

The order, comma and pipe are the go command's (cmd/go/internal/modfetch, TryProxies): 404 and 410
always fall through; any other failure falls through a pipe and stops at a comma; a failure outranks
a 404 in what is reported.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from modhaven.upstream import AttemptError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modhaven.upstream import Upstream

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What happened at one upstream."""

    upstream: str
    outcome: str
    milliseconds: int
    not_found: bool = False
    timed_out: bool = False
    skipped: bool = False


class ChainError(Exception):
    """No upstream gave the file.

    ``not_found``: every one that was asked said so. ``off``: nobody was to be asked at all.
    """

    def __init__(self, attempts: list[Attempt], *, cut_short: bool = False) -> None:
        """Keep what happened, in order; ``cut_short``: a skipped upstream hid the rest."""
        super().__init__(", ".join(f"{a.upstream}: {a.outcome}" for a in attempts))
        self.attempts = attempts
        asked = [attempt for attempt in attempts if not attempt.skipped]
        self.not_found = not cut_short and bool(asked) and all(a.not_found for a in asked)
        self.timed_out = any(attempt.timed_out for attempt in asked)
        self.off = all(attempt.upstream == "off" for attempt in attempts)


class Chain:
    """The upstreams in order."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        """Take the upstreams as configured."""
        self._upstreams = list(upstreams)

    def walk(self, use: Callable[[Upstream], T]) -> tuple[T, str]:
        """Return the first success of ``use`` and the upstream's name.

        ``use`` raises AttemptError for a failure of the upstream; other errors pass through.
        An upstream whose breaker is open is skipped at once; when no other could be asked, the
        breakers are ignored. Raises ChainError.
        """
        try:
            return self._walk(use, ignore_breakers=False)
        except ChainError as error:
            if not error.attempts or not all(attempt.skipped for attempt in error.attempts):
                raise
        return self._walk(use, ignore_breakers=True)

    def _walk(self, use: Callable[[Upstream], T], *, ignore_breakers: bool) -> tuple[T, str]:
        attempts: list[Attempt] = []
        for position, upstream in enumerate(self._upstreams, start=1):
            if upstream.is_off:
                attempts.append(
                    Attempt(upstream="off", outcome="off", milliseconds=0, not_found=True)
                )
                break
            if upstream.breaker.is_open and not ignore_breakers:
                attempts.append(skip(upstream))
                if not upstream.falls_through and position < len(self._upstreams):
                    # Nothing behind the comma may stand in for it: the answer is unknown.
                    raise ChainError(attempts, cut_short=True)
                continue
            try:
                return ask(upstream, use, attempts), upstream.name
            except AttemptError as error:
                if not error.not_found and not upstream.falls_through:
                    break
        raise ChainError(attempts)


def ask(upstream: Upstream, use: Callable[[Upstream], T], attempts: list[Attempt]) -> T:
    """Return ``use(upstream)``; its breaker and ``attempts`` learn of a failure. AttemptError."""
    start = time.monotonic()
    try:
        result = use(upstream)
    except AttemptError as error:
        if error.answered:
            upstream.breaker.succeeded()
        else:
            upstream.breaker.failed(timed_out=error.timed_out)
            _probe_if_due(upstream)
        attempts.append(
            Attempt(
                upstream=upstream.name,
                outcome=str(error),
                milliseconds=round((time.monotonic() - start) * 1000),
                not_found=error.not_found,
                timed_out=error.timed_out,
            )
        )
        raise
    upstream.breaker.succeeded()
    return result


def skip(upstream: Upstream) -> Attempt:
    """Return the record of an upstream left out; it is probed when its pause is over."""
    _probe_if_due(upstream)
    return Attempt(
        upstream=upstream.name, outcome="skipped, it failed just now", milliseconds=0, skipped=True
    )


def _probe_if_due(upstream: Upstream) -> None:
    if upstream.breaker.claim_probe():
        threading.Thread(target=_probe, args=(upstream,), daemon=True).start()


def _probe(upstream: Upstream) -> None:
    if upstream.probe():
        upstream.breaker.succeeded()
        log.info("upstream %s answers again", upstream.name)
