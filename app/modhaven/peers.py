"""The sibling backends: who of them holds a file? All are asked at once, in a bounded time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

from modhaven.attempt import AttemptError, Deadline
from modhaven.chain import Attempt, ask
from modhaven.hedge import race

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modhaven.upstream import Turn, Upstream

T = TypeVar("T")


class NoPeerError(Exception):
    """No sibling holds the file, or gave it."""


class Peers:
    """The siblings; only their stores are asked, they ask nobody on."""

    def __init__(self, upstreams: Sequence[Upstream], *, seconds: float) -> None:
        """``seconds``: how long to wait for the first that says it has the file."""
        self._upstreams = list(upstreams)
        self._seconds = seconds

    def walk(self, path: str, use: Callable[[Turn], T]) -> tuple[T, str]:
        """Return what ``use`` gets from a sibling that holds ``path``, and the sibling's name.

        One that does not answer in time is left out until a probe finds it well. NoPeerError.
        """
        left = [peer for peer in self._upstreams if peer.breaker.lets_through()]
        for peer in self._upstreams:
            if peer not in left:
                peer.probe_while_open()
        left = left or list(self._upstreams)
        deadline = Deadline.after(self._seconds)
        attempts: list[Attempt] = []
        while left and deadline.left > 0:
            calls = [functools.partial(self._holds, peer, path, deadline.left) for peer in left]
            won = race(calls, [0.0] * len(calls), passes=AttemptError, seconds=deadline.left)
            if won is None:
                break
            holder = left.pop(won[0])
            try:
                return ask(holder, use, attempts), holder.name
            except AttemptError:
                continue
        raise NoPeerError(path)

    @staticmethod
    def _holds(peer: Upstream, path: str, seconds: float) -> None:
        """Return when ``peer`` has ``path``. Raises AttemptError."""

        def look(_turn: Turn) -> None:
            if not peer.has(path, seconds=seconds):
                raise AttemptError("404", not_found=True)

        ask(peer, look, [])
