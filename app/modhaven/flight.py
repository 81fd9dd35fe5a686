"""Single flight among the threads of one process: many callers of one key, one call.

Whoever comes while a call is under way gets its result, or its error: when a source is down, fifty
waiters must not each wait for it again, one after the other.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

from modhaven import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Flights(Generic[T]):
    """The calls under way, by key."""

    def __init__(self) -> None:
        """Start with none."""
        self._guard = threading.Lock()
        self._flights: dict[str, Future[T]] = {}

    def is_under_way(self, key: str) -> bool:
        """Tell whether somebody is calling for ``key`` now."""
        with self._guard:
            return key in self._flights

    def do(self, key: str, call: Callable[[], T], *, wait_seconds: float) -> T:
        """Return what ``call`` returns, called once for all callers of ``key`` at this time.

        Raises what ``call`` raises; TimeoutError when another caller's takes too long.
        """
        with self._guard:
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if not leads:
            with metrics.flight_wait_seconds.time():
                return flight.result(timeout=wait_seconds)
        try:
            flight.set_result(call())
        except BaseException as error:
            flight.set_exception(error)
            raise
        finally:
            with self._guard:
                del self._flights[key]
        return flight.result()
