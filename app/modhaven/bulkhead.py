"""Bounds for what waits on upstreams: a flood of one kind of request leaves room for the others.

A request that the store answers needs no place. Those that share one fetch need one each, because
each holds a thread while it waits.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from modhaven import metrics
from modhaven.protocol import Class, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modhaven.protocol import Request
    from modhaven.settings import Limits


class FullError(Exception):
    """Every place is taken; the text says of what and how many there are."""


class Bulkhead:
    """Places for requests of one kind."""

    def __init__(self, name: str, places: int) -> None:
        """Start empty; ``name`` is what metrics and people are told."""
        self.name = name
        self.places = places
        self.taken = 0
        self._guard = threading.Lock()
        self._gauge = metrics.bulkhead_taken.labels(name)
        self._refused = metrics.bulkhead_refused.labels(name)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in this block. Raises FullError at once where there is none."""
        with self._guard:
            full = self.taken >= self.places
            self.taken += not full
        if full:
            self._refused.inc()
            raise FullError(f"{self.places} {self.name} requests are waiting for upstreams already")
        self._gauge.inc()
        try:
            yield
        finally:
            with self._guard:
                self.taken -= 1
            self._gauge.dec()


class Bulkheads:
    """The bulkheads of one process: zips, other files, and answers that may change."""

    def __init__(self, limits: Limits) -> None:
        """Make room for what ``limits`` allows."""
        self.zips = Bulkhead("zip", limits.zip_requests)
        self.files = Bulkhead("file", limits.file_requests)
        self.mutable = Bulkhead("mutable", limits.mutable_requests)

    def place(self, request: Request) -> contextlib.AbstractContextManager[None]:
        """Hold a place for ``request``; FullError where there is none."""
        return self._for(request).place()

    def __iter__(self) -> Iterator[Bulkhead]:
        """Give each of them."""
        return iter((self.zips, self.files, self.mutable))

    def _for(self, request: Request) -> Bulkhead:
        if request.kind is Kind.ZIP:
            return self.zips
        return self.mutable if request.cls is Class.MUTABLE else self.files
