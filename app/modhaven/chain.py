"""The chain: which upstream is asked next, and which failure is the one to report.

The order, comma and pipe are the go command's (cmd/go/internal/modfetch, TryProxies): 404 and 410
always fall through; any other failure falls through a pipe and stops at a comma; a failure outranks
a 404 in what is reported.

Upstreams joined by pipes are a group. In a group everyone is asked in a hurry first, so that a
black hole delays nobody long; when none had an answer, those that ran out of patience are asked
again with all the time they may take, the ones first that a probe has found alive meanwhile.
``direct`` is a group of its own: nobody is asked beside it, and it is in no hurry. What is probably
dead before it is asked again only when it has failed, too.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, TypeVar

from modhaven.attempt import Attempt
from modhaven.globs import match_prefix_patterns
from modhaven.walk import ChainError, Walk, ask, skip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modhaven.settings import Hedge
    from modhaven.source import Source
    from modhaven.upstream import Turn

__all__ = ["Attempt", "Chain", "ChainError", "ask", "skip"]

T = TypeVar("T")
_PAUSE_SECONDS = 0.4


class Chain:
    """The upstreams in order."""

    def __init__(
        self,
        upstreams: Sequence[Source],
        *,
        private: str = "",
        hedge: Hedge | None = None,
        rounds: int = 1,
    ) -> None:
        """Take the upstreams as configured; ``off`` ends them.

        Where every upstream fails in a way that may pass, all are asked ``rounds`` times.

        Modules that match ``private`` (GOPRIVATE's syntax) are asked for only where an upstream's
        own patterns name them.
        """
        ends = next((n for n, u in enumerate(upstreams) if u.is_off), len(upstreams))
        self._upstreams = list(upstreams[:ends])
        self._private = private
        self._hedge = hedge if hedge is not None and hedge.enabled else None
        self._rounds = rounds

    def is_dark(self, module: str) -> bool:
        """Tell whether every mirror for ``module`` is left out at present.

        Of ``direct`` nothing is known beforehand: each module has another origin.
        """
        upstreams = self._for(module)
        mirrors = [upstream for upstream in upstreams if not upstream.is_direct]
        return all(u.breaker.is_open for u in mirrors) and bool(mirrors or not upstreams)

    def walk(
        self,
        use: Callable[[Turn], T],
        *,
        module: str = "",
        hedged: bool = False,
        persist: bool = True,
        again: bool = True,
        before_again: Callable[[], tuple[T, str] | None] | None = None,
    ) -> tuple[T, str]:
        """Return the first success of ``use`` and the upstream's name.

        ``use`` raises AttemptError for a failure of the upstream; other errors pass through.
        An upstream whose breaker is open is skipped at once; when no other could be asked, or none
        but ``direct``, which failed, the breakers are ignored. With ``hedged`` the next upstream of
        a group is asked beside one that is slower than usual: ``use`` runs in several threads.
        Without ``persist`` nobody gets more time than the first hurried attempt, and without
        ``again`` one round has to do. What ``before_again`` finds between the first round and the
        second saves all others. Raises ChainError.
        """
        upstreams = self._for(module)
        if not upstreams:
            raise ChainError([], reason=self._why_none(module))
        walk = Walk(use, self._hedge if hedged else None, upstreams, persist=persist)
        try:
            return walk.run()
        except ChainError as error:
            if error.not_found or not (walk.was_skipped or (persist and error.may_pass)):
                raise
            failure = error
        if walk.was_skipped:
            return walk.run_again()
        # Mirrors whose faults take turns: while one was left out, the others have failed.
        for pause in range(1, self._rounds if again else 1):
            if pause == 1 and before_again is not None:
                found = before_again()
                if found is not None:
                    return found
            time.sleep(_PAUSE_SECONDS * pause * (0.5 + random.random()))  # noqa: S311 - only spreads
            try:
                return walk.run_again()
            except ChainError as error:
                failure = error
                if not error.may_pass:
                    break
        raise failure

    def _for(self, module: str) -> list[Source]:
        private = match_prefix_patterns(self._private, module)
        return [u for u in self._upstreams if u.is_for(module, private=private)]

    def _why_none(self, module: str) -> str:
        if not self._upstreams:
            return "upstreams is off"
        if match_prefix_patterns(self._private, module):
            return "it is private and no upstream is for it"
        return "no upstream is for it"
