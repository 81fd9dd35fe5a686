"""What the chain asks of a source: a mirror (upstream.Upstream) or ``direct`` (direct.Direct)."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from modhaven.attempt import Deadline
    from modhaven.breaker import Breaker
    from modhaven.latency import Latencies


class Source(Protocol):
    """One place of the chain. ``falls_through``: the next is asked after any failure (the pipe)."""

    name: str
    url: str
    falls_through: bool
    is_off: bool
    is_direct: bool
    breaker: Breaker
    latencies: Latencies

    @property
    def serves_all(self) -> bool:
        """Tell whether it may be asked for what belongs to all modules: a database's tiles."""

    def is_for(self, module: str, *, private: bool) -> bool:
        """Tell whether ``module`` may be asked for here."""

    def fetch(
        self, path: str, sink: BinaryIO, *, limit: int, deadline: Deadline, hurried: bool = False
    ) -> None:
        """Write what ``path`` is to ``sink``, which is emptied first; AttemptError."""

    def probe_while_open(self) -> None:
        """See to it that it is probed, in the background, until well, when it was left out."""

    def recovers(self, *, seconds: float) -> bool:
        """Tell whether it is found well within ``seconds`` after it was left out."""
