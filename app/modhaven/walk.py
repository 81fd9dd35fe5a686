"""One request's way along the chain, group by group (chain.py has the rules)."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from modhaven import metrics
from modhaven.attempt import Attempt, AttemptError
from modhaven.hedge import race
from modhaven.upstream import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from modhaven.settings import Hedge
    from modhaven.source import Source

T = TypeVar("T")
# How long after a timeout the upstream's base address has to answer, to be called alive.
_ALIVE_SECONDS = 0.4


class ChainError(Exception):
    """No upstream gave the file.

    ``not_found``: every one that was asked said so. ``off``: nobody was to be asked at all, and
    ``reason`` says why. ``may_pass``: in a moment one of them may have it.
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
        answered = any(attempt.not_found for attempt in asked)
        self.may_pass = not answered and any(a.transient or a.skipped for a in attempts)
        self.off = not attempts
        self.reason = reason


class Walk(Generic[T]):
    """One request's way along the chain."""

    def __init__(
        self,
        use: Callable[[Turn], T],
        hedge: Hedge | None,
        upstreams: list[Source],
        *,
        persist: bool,
    ) -> None:
        """Walk along ``upstreams`` with ``use``; the rest as in Chain.walk."""
        self._use = use
        self._hedge = hedge
        self._upstreams = upstreams
        self._persist = persist
        self._ignore_breakers = False
        self._attempts: dict[str, Attempt] = {}
        self._hurried: set[str] = set()
        self._passed_over: list[Source] = []

    @property
    def was_skipped(self) -> bool:
        """Tell whether breakers kept every mirror from being asked, as far as the walk came."""
        mirrors = [u for u in self._reached() if not u.is_direct]
        return bool(mirrors) and all(self._attempts[mirror.name].skipped for mirror in mirrors)

    def run(self) -> tuple[T, str]:
        """Ask group by group."""
        return self._run(self._upstreams)

    def run_again(self) -> tuple[T, str]:
        """Ask those whom breakers kept from being asked; a ``direct`` that has failed, no more."""
        self._ignore_breakers = True
        self._hurried.clear()
        self._passed_over.clear()
        reached = self._reached()
        if not any(upstream.is_direct for upstream in reached):
            return self._run(self._upstreams)
        return self._run([upstream for upstream in reached if not upstream.is_direct])

    def _reached(self) -> list[Source]:
        return [upstream for upstream in self._upstreams if upstream.name in self._attempts]

    def _run(self, upstreams: list[Source]) -> tuple[T, str]:
        groups = _groups(upstreams)
        for group in groups:
            last_group = group is groups[-1]
            found = self._ask_group(group, goes_on=group[-1].falls_through and not last_group)
            if found is not None:
                return found
            last = self._attempts[group[-1].name]
            if not group[-1].falls_through and not last.not_found and not last_group:
                # Nothing behind the comma may stand in for what was skipped: it is unknown.
                raise ChainError(self._told(), cut_short=last.skipped)
        found = self._ask_passed_over()
        if found is not None:
            return found
        raise ChainError(self._told())

    def _told(self) -> list[Attempt]:
        return [self._attempts[upstream.name] for upstream in self._reached()]

    def _ask_group(self, group: list[Source], *, goes_on: bool) -> tuple[T, str] | None:
        """Ask one group; ``goes_on``: whatever comes of it, another group is asked next."""
        asked = [u for u in group if self._ignore_breakers or u.breaker.lets_through()]
        for upstream in group:
            if upstream not in asked:
                self._attempts[upstream.name] = skip(upstream)
        # Nobody is in a hurry where there is nobody else to ask, and direct never is beside others.
        alone = len(asked) == 1 and (asked[0].is_direct or not goes_on)
        found = self._ask_first(asked, hurried=not alone or not self._persist)
        if found is not None or not self._persist:
            return found
        late = [upstream for upstream in asked if upstream.name in self._hurried]
        alive = [upstream for upstream in late if upstream.recovers(seconds=_ALIVE_SECONDS)]
        found = self._ask_patiently(alive)
        if found is not None or any(self._attempts[upstream.name].not_found for upstream in group):
            # There is an answer, of a kind: nobody waits for what is probably dead.
            return found
        dead = [upstream for upstream in late if upstream not in alive]
        if goes_on:
            self._passed_over += dead
            return None
        return self._ask_patiently(dead)

    def _ask_passed_over(self) -> tuple[T, str] | None:
        if any(attempt.not_found for attempt in self._attempts.values()):
            return None
        return self._ask_patiently(self._passed_over)

    def _ask_patiently(self, upstreams: list[Source]) -> tuple[T, str] | None:
        for upstream in upstreams:
            found = self._ask(upstream, hurried=False)
            if found is not None:
                return found
        return None

    def _ask_first(self, upstreams: list[Source], *, hurried: bool) -> tuple[T, str] | None:
        if self._hedge is None or len(upstreams) == 1:
            for upstream in upstreams:
                found = self._ask(upstream, hurried=hurried)
                if found is not None:
                    return found
            return None
        calls = [functools.partial(self._ask_or_raise, upstream) for upstream in upstreams]
        won = race(calls, [_delay(self._hedge, u) for u in upstreams], passes=AttemptError)
        return None if won is None else (won[1], upstreams[won[0]].name)

    def _ask_or_raise(self, upstream: Source) -> T:
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

    def _ask(self, upstream: Source, *, hurried: bool) -> tuple[T, str] | None:
        attempts: list[Attempt] = []
        try:
            return ask(upstream, self._use, attempts, hurried=hurried), upstream.name
        except AttemptError as error:
            self._attempts[upstream.name] = attempts[0]
            if error.hurried:
                self._hurried.add(upstream.name)
            return None


def ask(
    upstream: Source,
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
                transient=error.transient,
            )
        )
        raise
    metrics.attempted(upstream.name, "ok", start)
    upstream.breaker.succeeded()
    return result


def skip(upstream: Source) -> Attempt:
    """Return the record of an upstream left out; it is probed when its pause is over."""
    upstream.probe_while_open()
    metrics.upstream_attempts.labels(upstream.name, "skipped").inc()
    return Attempt(
        upstream=upstream.name, outcome="skipped, it failed just now", milliseconds=0, skipped=True
    )


def _groups(upstreams: list[Source]) -> list[list[Source]]:
    groups: list[list[Source]] = [[]]
    for upstream in upstreams:
        if upstream.is_direct:
            groups.append([])
        groups[-1].append(upstream)
        if upstream.is_direct or not upstream.falls_through:
            groups.append([])
    return [group for group in groups if group]


def _delay(hedge: Hedge, upstream: Source) -> float:
    usual = upstream.latencies.usual
    if usual is None:
        return hedge.max_seconds
    return min(max(usual, hedge.min_seconds), hedge.max_seconds)
