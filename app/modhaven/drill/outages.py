"""How long users waited for answers: the longest gap, and the switch-over. Pure.

A stream is what one client asks of one kind: ``/readyz``, which only a backend answers, or files,
which a cache may answer. What one stream is answered says nothing of another: each is looked at by
itself, and the worst is told. Time without an answer counts from the moment a request was due, so
that a stream whose requests are far apart has waited for nothing as long as each is answered.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from modhaven.drill.figures import Request

# Every second request of a load is one of /readyz.
KINDS = 2
# What lasts for fewer requests of a stream is no interruption.
REQUESTS_NOTICED = 2
# Failures of a stream so close together are one outage, whatever was answered between them.
_ONE_OUTAGE_SECONDS = 1.0


def is_file(url: str) -> bool:
    """Whether a request is one for a file of a module."""
    return "/@v/" in url


def longest_gap(requests: Sequence[Request]) -> tuple[float, float] | None:
    """Give the longest time in which a stream got no answer, and when it began; None: no requests.

    It begins when a request is due, and ends with the stream's first good answer from then on, or
    with the load.
    """
    gaps = [
        (answered - one.due, one.due)
        for stream in _streams(requests)
        for one, answered in _answered(stream, _end(requests))
    ]
    return max(gaps, default=None)


def switch_over(requests: Sequence[Request], fault: float) -> float:
    """Give the seconds of the longest outage after the fault; 0.0: nobody noticed.

    An outage lasts from the first request that was late or failed to the first answer after it, or
    after the last of several failures. One that meets the first request began with the fault.
    """
    end = _end(requests)
    return max((_outage(stream, fault, end) for stream in _streams(requests)), default=0.0)


def _outage(stream: Sequence[Request], fault: float, end: float) -> float:
    longest, began, last_failed = 0.0, fault, -_ONE_OUTAGE_SECONDS
    is_first, has_failed = True, False
    for one, answered in _answered(stream, end):
        if answered <= fault or (one.error and one.ended <= fault):
            continue
        start = max(fault, one.due)
        if is_first and one.due >= fault:
            start, is_first = fault, False
        if one.error:
            if has_failed and one.due - last_failed <= _ONE_OUTAGE_SECONDS:
                start = began
            began, last_failed, has_failed = start, one.due, True
        longest = max(longest, answered - start)
    if not has_failed and longest < REQUESTS_NOTICED * _interval(stream):
        return 0.0
    return longest


def _streams(requests: Sequence[Request]) -> list[list[Request]]:
    """Give the requests of each stream in the order in which they were due."""
    found: dict[tuple[str, bool], list[Request]] = {}
    for one in sorted(requests, key=lambda one: one.due):
        found.setdefault((one.client, is_file(one.url)), []).append(one)
    return list(found.values())


def _answered(stream: Sequence[Request], end: float) -> Iterator[tuple[Request, float]]:
    """Give each request, and when its stream was answered next: that may be a later one's answer.

    Where it never was: the end of the load, or of the request.
    """
    good = sorted(one.ended for one in stream if not one.error)
    for one in stream:
        at = bisect.bisect_left(good, one.due)
        yield one, good[at] if at < len(good) else max(end, one.ended)


def _end(requests: Sequence[Request]) -> float:
    return max((one.due for one in requests), default=0.0)


def _interval(stream: Sequence[Request]) -> float:
    return (stream[-1].due - stream[0].due) / max(1, len(stream) - 1)
