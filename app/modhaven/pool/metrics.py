"""The pool as Prometheus reads it: a text file that the edge's nginx serves to monitors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, write_to_textfile

if TYPE_CHECKING:
    from pathlib import Path

    from modhaven.pool.status import PoolStatus

_PAUSE_SECONDS = 2.0


class Metrics:
    """Counters and gauges of one edge's pool."""

    def __init__(self) -> None:
        """Start at zero."""
        registry = CollectorRegistry()
        self._registry = registry
        self._written_at = -float("inf")
        self.reloads = Counter(
            "modhaven_pool_reloads", "Times nginx was given another pool.", registry=registry
        )
        self.failures = Counter(
            "modhaven_pool_failures", "Times nginx did not take a pool.", registry=registry
        )
        self._asked = Gauge(
            "modhaven_pool_backend_asked", "Whether nginx asks a backend.", ("backend", "state"),
            registry=registry,
        )  # fmt: skip
        self._in_flight = Gauge(
            "modhaven_pool_backend_in_flight", "Requests a backend works on, from all edges.",
            ("backend",), registry=registry,
        )  # fmt: skip
        self._published = Gauge(
            "modhaven_pool_published", "Whether nginx has the pool it should have.",
            registry=registry,
        )  # fmt: skip
        self._problem = Gauge(
            "modhaven_pool_problem",
            "Whether something is wrong that `modhaven pool status` names, such as its pool.yml.",
            registry=registry,
        )
        self._updated = Gauge(
            "modhaven_pool_updated_timestamp_seconds",
            "When the pool manager wrote this: nginx serves it even when the manager is dead.",
            registry=registry,
        )
        self._kept = Gauge(
            "modhaven_pool_kept",
            "Whether backends are asked that are not ready, since too few would be left.",
            registry=registry,
        )
        self._promoted = Gauge(
            "modhaven_pool_promoted", "Whether backups serve beside the others.", registry=registry
        )
        self._connections = Gauge(
            "modhaven_pool_connections", "Connections with a request, over some seconds.",
            registry=registry,
        )  # fmt: skip
        self._baseline = Gauge(
            "modhaven_pool_connections_baseline", "Connections that are usual.", registry=registry
        )

    def write(self, path: Path, told: PoolStatus) -> None:
        """Bring the file up to date, every few seconds. OSError."""
        now = time.monotonic()
        if now - self._written_at < _PAUSE_SECONDS:
            return
        self._written_at = now
        self._asked.clear()
        self._in_flight.clear()
        for server in told.servers:
            self._asked.labels(server.name, server.state).set(server.asked)
            if server.in_flight is not None:
                self._in_flight.labels(server.name).set(server.in_flight)
        self._published.set(told.published)
        self._problem.set(bool(told.error))
        self._updated.set(told.time)
        self._kept.set(told.kept)
        self._promoted.set(told.promoted)
        self._connections.set(told.connections or 0)
        self._baseline.set(told.baseline)
        write_to_textfile(str(path), self._registry)
