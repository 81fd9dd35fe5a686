"""How a backend stands, for operators: the lines of /readyz?verbose, and readings for metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

from modhaven import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from prometheus_client import Metric

    from modhaven.bulkhead import Bulkheads
    from modhaven.databases import Databases
    from modhaven.source import Source
    from modhaven.store.base import Store
    from modhaven.upstream import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The parts of one process that have a state worth telling."""

    store: Store
    upstreams: Sequence[Source]
    peers: Sequence[Upstream]
    databases: Databases
    bulkheads: Bulkheads
    drain_file: Path

    def problem(self) -> str | None:
        """Return why this backend should not be asked now, as a sentence, or None."""
        if self.drain_file.exists():
            return f"draining: {self.drain_file} exists"
        problem = self.store.problem()
        return f"not ready: {problem}" if problem is not None else None

    def lines(self) -> list[str]:
        """Return one line a part; upstreams are as this worker sees them."""
        lines = [f"version: {__version__}", f"store: {self.store.free_bytes()} bytes free"]
        lines += [f"upstream {upstream.name}: {upstream.breaker}" for upstream in self.upstreams]
        lines += [f"sibling {peer.name}: {peer.breaker}" for peer in self.peers]
        lines += [
            f"checksum database {database.name}: "
            + ("has signed two histories, nothing new is published" if database.forked else "well")
            for database in self.databases
        ]
        lines += [
            f"{bulkhead.name} requests waiting for upstreams: "
            f"{bulkhead.taken} of {bulkhead.places} at most"
            for bulkhead in self.bulkheads
        ]
        return lines

    def metrics(self) -> list[Metric]:
        """Return what is the same whichever worker is asked."""
        free = GaugeMetricFamily(
            "modhaven_store_free_bytes",
            "Bytes free on the store's file system.",
            value=self.store.free_bytes(),
        )
        ready = GaugeMetricFamily(
            "modhaven_ready", "Whether /readyz is 200.", value=self.problem() is None
        )
        fork = GaugeMetricFamily(
            "modhaven_sumdb_fork",
            "Whether a checksum database has signed two histories; nothing new is published then.",
            labels=("database",),
        )
        for database in self.databases:
            fork.add_metric((database.name,), database.forked)
        build = GaugeMetricFamily(
            "modhaven_build_info", "The version that runs; always 1.", labels=("version",)
        )
        build.add_metric((__version__,), 1)
        return [free, ready, fork, build]
