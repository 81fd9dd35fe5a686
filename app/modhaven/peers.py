"""The sibling backends: what do their stores hold? All are asked at once, in a bounded time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

from modhaven.attempt import AttemptError, Deadline
from modhaven.chain import Attempt, ask
from modhaven.hedge import gather, race

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
        self.upstreams = list(upstreams)
        self.seconds = seconds

    def walk(self, path: str, use: Callable[[Turn], T]) -> tuple[T, str]:
        """Return what ``use`` gets from a sibling that holds ``path``, and the sibling's name.

        One that does not answer in time is left out until a probe finds it well. NoPeerError.
        """
        left = self._well() or list(self.upstreams)
        deadline = Deadline.after(self.seconds)
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

    def say(self, path: str, *, limit: int) -> list[tuple[str, bytes, str]]:
        """Return each sibling's name, its small answer for ``path``, and what it says of its age.

        Of those that are not left out, hold one, and give it in time.
        """

        def small(peer: Upstream) -> tuple[str, bytes, str]:
            def use(_turn: Turn) -> tuple[bytes, str]:
                return peer.small(path, limit=limit, seconds=self.seconds)

            return peer.name, *ask(peer, use, [])

        calls = [functools.partial(small, peer) for peer in self._well()]
        return gather(calls, passes=AttemptError, seconds=self.seconds)

    def _well(self) -> list[Upstream]:
        """Return who is not left out."""
        well = [peer for peer in self.upstreams if peer.breaker.lets_through()]
        for peer in self.upstreams:
            if peer not in well:
                peer.probe_while_open()
        return well

    @staticmethod
    def _holds(peer: Upstream, path: str, seconds: float) -> None:
        """Return when ``peer`` has ``path``. Raises AttemptError."""
        ask(peer, lambda _turn: peer.has(path, seconds=seconds), [])
