"""The chain: which upstream is asked next, and which failure is the one to report.

The order, comma and pipe are the go command's (cmd/go/internal/modfetch, TryProxies): 404 and 410
always fall through; any other failure falls through a pipe and stops at a comma; a failure outranks
a 404 in what is reported.

Upstreams joined by pipes are a group. In a group everyone is asked in a hurry first, so that a
black hole delays nobody long; when none had an answer, those that ran out of patience are asked
again with all the time they may take, the ones first that a probe has found alive meanwhile.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from modhaven import metrics
from modhaven.attempt import Attempt, AttemptError
from modhaven.globs import match_prefix_patterns
from modhaven.hedge import race
from modhaven.upstream import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modhaven.settings import Hedge
    from modhaven.upstream import Upstream

__all__ = ["Attempt", "Chain", "ChainError", "ask", "skip"]

T = TypeVar("T")
# How long after a timeout the upstream's base address has to answer, to be called alive.
_ALIVE_SECONDS = 0.4


class ChainError(Exception):
    """No upstream gave the file.

    ``not_found``: every one that was asked said so. ``off``: nobody was to be asked at all, and
    ``reason`` says why.
    """

    def __init__(
        self, attempts: list[Attempt], *, cut_short: bool = False, reason: str = ""
    ) -> None:
        """Keep what happened, in order; ``cut_short``: a skipped upstream hid the rest."""
        super().__init__(", ".join(f"{a.upstream}: {a.outcome}" for a in attempts))
        self.attempts = attempts
        asked = [attempt for attempt in attempts if not attempt.skipped]
        self.not_found = not cut_short and bool(asked) and all(a.not_found for a in asked)
        self.timed_out = any(attempt.timed_out for attempt in asked)
        self.off = not attempts
        self.reason = reason


class Chain:
    """The upstreams in order."""

    def __init__(
        self, upstreams: Sequence[Upstream], *, private: str = "", hedge: Hedge | None = None
    ) -> None:
        """Take the upstreams as configured; ``off`` ends them.

        Modules that match ``private`` (GOPRIVATE's syntax) are asked for only where an upstream's
        own patterns name them.
        """
        ends = next((n for n, u in enumerate(upstreams) if u.is_off), len(upstreams))
        self._upstreams = list(upstreams[:ends])
        self._private = private
        self._hedge = hedge if hedge is not None and hedge.enabled else None

    def is_dark(self, module: str) -> bool:
        """Tell whether every upstream for ``module`` is left out at present."""
        return all(upstream.breaker.is_open for upstream in self._for(module))

    def walk(
        self,
        use: Callable[[Turn], T],
        *,
        module: str = "",
        hedged: bool = False,
        persist: bool = True,
    ) -> tuple[T, str]:
        """Return the first success of ``use`` and the upstream's name.

        ``use`` raises AttemptError for a failure of the upstream; other errors pass through.
        An upstream whose breaker is open is skipped at once; when no other could be asked, the
        breakers are ignored. With ``hedged`` the next upstream of a group is asked beside one that
        is slower than usual: ``use`` runs in several threads. Without ``persist`` nobody gets more
        time than the first hurried attempt. Raises ChainError.
        """
        upstreams = self._for(module)
        if not upstreams:
            raise ChainError([], reason=self._why_none(module))
        hedge = self._hedge if hedged else None
        try:
            return _Walk(use, hedge, persist=persist, ignore_breakers=False).run(upstreams)
        except ChainError as error:
            if not all(attempt.skipped for attempt in error.attempts):
                raise
        return _Walk(use, hedge, persist=persist, ignore_breakers=True).run(upstreams)

    def _for(self, module: str) -> list[Upstream]:
        private = match_prefix_patterns(self._private, module)
        return [u for u in self._upstreams if u.is_for(module, private=private)]

    def _why_none(self, module: str) -> str:
        if not self._upstreams:
            return "upstreams is off"
        if match_prefix_patterns(self._private, module):
            return "it is private and no upstream is for it"
        return "no upstream is for it"


class _Walk(Generic[T]):
    """One request's way along the chain."""

    def __init__(
        self,
        use: Callable[[Turn], T],
        hedge: Hedge | None,
        *,
        persist: bool,
        ignore_breakers: bool,
    ) -> None:
        self._use = use
        self._hedge = hedge
        self._persist = persist
        self._ignore_breakers = ignore_breakers
        self._attempts: dict[str, Attempt] = {}
        self._hurried: set[str] = set()

    def run(self, upstreams: list[Upstream]) -> tuple[T, str]:
        """Ask group by group."""
        groups = _groups(upstreams)
        for group in groups:
            found = self._ask_group(group)
            if found is not None:
                return found
            last = self._attempts[group[-1].name]
            if not group[-1].falls_through and not last.not_found and group is not groups[-1]:
                # Nothing behind the comma may stand in for what was skipped: it is unknown.
                raise ChainError(self._told(upstreams), cut_short=last.skipped)
        raise ChainError(self._told(upstreams))

    def _told(self, upstreams: list[Upstream]) -> list[Attempt]:
        return [self._attempts[u.name] for u in upstreams if u.name in self._attempts]

    def _ask_group(self, group: list[Upstream]) -> tuple[T, str] | None:
        asked = [u for u in group if self._ignore_breakers or u.breaker.lets_through()]
        for upstream in group:
            if upstream not in asked:
                self._attempts[upstream.name] = skip(upstream)
        # Nobody is in a hurry where there is nobody else to ask.
        found = self._ask_first(asked, hurried=len(asked) > 1 or not self._persist)
        if found is not None or not self._persist:
            return found
        late = [upstream for upstream in asked if upstream.name in self._hurried]
        alive = [upstream for upstream in late if upstream.recovers(seconds=_ALIVE_SECONDS)]
        for upstream in alive:
            found = self._ask(upstream, hurried=False)
            if found is not None:
                return found
        if any(self._attempts[upstream.name].not_found for upstream in group):
            # There is an answer, of a kind: nobody waits for what is probably dead.
            return None
        for upstream in late:
            found = None if upstream in alive else self._ask(upstream, hurried=False)
            if found is not None:
                return found
        return None

    def _ask_first(self, upstreams: list[Upstream], *, hurried: bool) -> tuple[T, str] | None:
        if self._hedge is None or len(upstreams) == 1:
            for upstream in upstreams:
                found = self._ask(upstream, hurried=hurried)
                if found is not None:
                    return found
            return None
        calls = [functools.partial(self._ask_or_raise, upstream) for upstream in upstreams]
        won = race(calls, [_delay(self._hedge, u) for u in upstreams], passes=AttemptError)
        return None if won is None else (won[1], upstreams[won[0]].name)

    def _ask_or_raise(self, upstream: Upstream) -> T:
        start = time.monotonic()
        attempts: list[Attempt] = []
        try:
            result = ask(upstream, self._use, attempts, hurried=True)
        except AttemptError as error:
            self._attempts[upstream.name] = attempts[0]
            if error.hurried:
                self._hurried.add(upstream.name)
            elif error.not_found:
                upstream.latencies.note(time.monotonic() - start)
            raise
        upstream.latencies.note(time.monotonic() - start)
        return result

    def _ask(self, upstream: Upstream, *, hurried: bool) -> tuple[T, str] | None:
        attempts: list[Attempt] = []
        try:
            return ask(upstream, self._use, attempts, hurried=hurried), upstream.name
        except AttemptError as error:
            self._attempts[upstream.name] = attempts[0]
            if error.hurried:
                self._hurried.add(upstream.name)
            return None


def ask(
    upstream: Upstream,
    use: Callable[[Turn], T],
    attempts: list[Attempt],
    *,
    hurried: bool = False,
) -> T:
    """Return what ``use`` does; the breaker and ``attempts`` learn of a failure. AttemptError."""
    start = time.monotonic()
    try:
        result = use(Turn(upstream, hurried))
    except AttemptError as error:
        metrics.attempted(upstream.name, error.category, start)
        if error.answered:
            upstream.breaker.succeeded()
        else:
            upstream.breaker.failed(str(error), timed_out=error.timed_out)
            upstream.probe_while_open()
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
    metrics.attempted(upstream.name, "ok", start)
    upstream.breaker.succeeded()
    return result


def skip(upstream: Upstream) -> Attempt:
    """Return the record of an upstream left out; it is probed when its pause is over."""
    upstream.probe_while_open()
    metrics.upstream_attempts.labels(upstream.name, "skipped").inc()
    return Attempt(
        upstream=upstream.name, outcome="skipped, it failed just now", milliseconds=0, skipped=True
    )


def _groups(upstreams: list[Upstream]) -> list[list[Upstream]]:
    groups: list[list[Upstream]] = [[]]
    for upstream in upstreams:
        groups[-1].append(upstream)
        if not upstream.falls_through:
            groups.append([])
    return [group for group in groups if group]


def _delay(hedge: Hedge, upstream: Upstream) -> float:
    usual = upstream.latencies.usual
    if usual is None:
        return hedge.max_seconds
    return min(max(usual, hedge.min_seconds), hedge.max_seconds)
