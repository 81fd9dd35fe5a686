"""What Prometheus is told: every counter of the app, and the page that sums all workers.

prometheus-client shares its values between processes, in files below PROMETHEUS_MULTIPROC_DIR, when
that is set before this module is loaded; without it the values are this process's own.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

__all__ = ["CONTENT_TYPE_LATEST", "SHARED", "mark_process_dead", "page"]

SHARED = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_registry = CollectorRegistry()

requests = Counter(
    "modhaven_requests",
    "Requests that reached the app, by class and status. Files that nginx serves do not.",
    ("class", "status"), registry=_registry,
)  # fmt: skip
request_seconds = Histogram(
    "modhaven_request_seconds",
    "Seconds until the app had an answer.",
    ("class",), buckets=_SECONDS, registry=_registry,
)  # fmt: skip
upstream_attempts = Counter(
    "modhaven_upstream_attempts",
    "Questions to upstreams, siblings and checksum databases, by outcome: ok, not_found, "
    "refused (401, 403 and the like), timed_out, failed, skipped (left out by its breaker).",
    ("upstream", "outcome"), registry=_registry,
)  # fmt: skip
upstream_seconds = Histogram(
    "modhaven_upstream_seconds",
    "Seconds that questions to an upstream took, retries and verification included.",
    ("upstream",), buckets=_SECONDS, registry=_registry,
)  # fmt: skip
upstream_open = Gauge(
    "modhaven_upstream_open",
    "Whether the circuit breaker of an upstream is open in any worker: requests go past it.",
    ("upstream",), registry=_registry, multiprocess_mode="livemax",
)  # fmt: skip
verifications = Counter(
    "modhaven_verifications",
    "Files judged, by verdict. A mismatch was quarantined.",
    ("verdict",), registry=_registry,
)  # fmt: skip
flight_wait_seconds = Histogram(
    "modhaven_flight_wait_seconds",
    "Seconds that requests waited for another one's fetch of the same file.",
    buckets=_SECONDS, registry=_registry,
)  # fmt: skip
bulkhead_taken = Gauge(
    "modhaven_bulkhead_taken",
    "Requests that are waiting for upstreams, by kind.",
    ("bulkhead",), registry=_registry, multiprocess_mode="livesum",
)  # fmt: skip
bulkhead_refused = Counter(
    "modhaven_bulkhead_refused",
    "Requests refused with 503 because too many of their kind were waiting already.",
    ("bulkhead",), registry=_registry,
)  # fmt: skip
store_bytes = Gauge(
    "modhaven_store_bytes",
    "Bytes of the published files, as counted last.",
    registry=_registry, multiprocess_mode="mostrecent",
)  # fmt: skip
store_files = Gauge(
    "modhaven_store_files",
    "Number of the published files, as counted last.",
    registry=_registry, multiprocess_mode="mostrecent",
)  # fmt: skip
store_unverified_files = Gauge(
    "modhaven_store_unverified_files",
    "Number of the published files that no checksum database has confirmed yet, as counted last.",
    registry=_registry, multiprocess_mode="mostrecent",
)  # fmt: skip


def attempted(upstream: str, outcome: str, began: float) -> None:
    """Count a question to ``upstream`` that began at ``began`` on the monotonic clock."""
    upstream_attempts.labels(upstream, outcome).inc()
    upstream_seconds.labels(upstream).observe(time.monotonic() - began)


def page(families: Iterable[Metric]) -> bytes:
    """Return all metrics of all workers in Prometheus's text format, and ``families``."""
    return generate_latest(_of_all_workers()) + generate_latest(_Families(families))


def waiting_for_upstreams() -> int:
    """Return how many requests of all workers hold a place of a bulkhead."""
    return sum(
        int(sample.value)
        for family in _of_all_workers().collect()
        if family.name == "modhaven_bulkhead_taken"
        for sample in family.samples
    )


def _of_all_workers() -> CollectorRegistry:
    if SHARED not in os.environ:
        return _registry
    registry = CollectorRegistry()
    _OfStarted(registry)  # type: ignore[no-untyped-call]
    return registry


class _OfStarted(MultiProcessCollector):
    """A worker that starts makes its files empty first: they say nothing yet, and are no error."""

    def collect(self) -> Iterable[Metric]:
        files = [str(path) for path in Path(os.environ[SHARED]).glob("*.db") if _size(path)]
        merged: Iterable[Metric] = self.merge(files, accumulate=True)  # type: ignore[no-untyped-call]
        return merged


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


class _Families:
    """Values that were read just now, as generate_latest wants them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
