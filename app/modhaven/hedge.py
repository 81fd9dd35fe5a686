"""Several calls for one answer: the first good one, begun one after the other, or all there are."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def race(
    calls: Sequence[Callable[[], T]],
    delays: Sequence[float],
    *,
    passes: type[Exception] | tuple[type[Exception], ...],
    seconds: float | None = None,
) -> tuple[int, T] | None:
    """Return the first result and the number of its call; None when every call failed.

    ``delays[n]``: the seconds call n has before call n+1 begins beside it. A call fails by raising
    ``passes``; anything else it raises is raised here. ``seconds``: the bound for all of it.
    Calls run in threads, in copies of the caller's context; losers run to their own end.
    """
    running = _Running(calls)
    ended = 0
    while ended < len(calls):
        if running.started == ended:
            running.start_next()
        last = running.started == len(calls)
        try:
            number, result, error = running.done.get(
                timeout=seconds if last else delays[running.started - 1]
            )
        except queue.Empty:
            if last:
                return None
            running.start_next()
            continue
        if error is None:
            return number, result  # type: ignore[return-value] # a call that ended has a result
        if not isinstance(error, passes):
            raise error
        ended += 1
    return None


def gather(
    calls: Sequence[Callable[[], T]],
    *,
    passes: type[Exception] | tuple[type[Exception], ...],
    seconds: float,
) -> list[T]:
    """Return what comes within ``seconds`` of calls that begin together, but of those that fail.

    Failing, threads and contexts: as in race.
    """
    running = _Running(calls)
    for _ in calls:
        running.start_next()
    end = time.monotonic() + seconds
    results = []
    for _ in calls:
        try:
            _, result, error = running.done.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        if error is None:
            results.append(result)
        elif not isinstance(error, passes):
            raise error
    return results  # type: ignore[return-value] # as above


class _Running(Generic[T]):
    """The calls that have begun, each in a thread."""

    def __init__(self, calls: Sequence[Callable[[], T]]) -> None:
        self.started = 0
        self.done: queue.SimpleQueue[tuple[int, T | None, BaseException | None]] = (
            queue.SimpleQueue()
        )
        self._calls = calls

    def start_next(self) -> None:
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run, self.started), daemon=True).start()
        self.started += 1

    def _run(self, number: int) -> None:
        try:
            self.done.put((number, self._calls[number](), None))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            self.done.put((number, None, error))
