"""Gaps and switch-overs of a load's streams, each looked at by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from modhaven.drill.figures import Request
from modhaven.drill.outages import longest_gap, switch_over

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Callable[[float], tuple[float, str]]

FILE, READY = "https://10.0.3.100/m/@v/v1.0.0.zip", "https://10.0.3.100/readyz"


def promptly(due: float) -> tuple[float, str]:
    return due + 0.01, ""


def stalled(begin: float, end: float) -> Answer:
    """What is due meanwhile is answered at its end."""
    return lambda due: (end if begin <= due < end else due + 0.01, "")


def refused(begin: float, end: float) -> Answer:
    return lambda due: (due + 0.01, "refused" if begin <= due < end else "")


def stream(
    url: str, answer: Answer = promptly, *, rate: float = 10, client: str = ""
) -> list[Request]:
    """Ten seconds of one kind, `rate` a second."""
    found = []
    for number in range(int(10 * rate)):
        ended, error = answer(number / rate)
        found.append(Request(due=number / rate, ended=ended, error=error, url=url, client=client))
    return found


def gap(requests: list[Request]) -> float:
    found = longest_gap(requests)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("rate", [0.5, 2, 20])
def test_a_steady_load_has_no_gap_however_far_apart_its_requests_are(rate: float) -> None:
    requests = [*stream(FILE, rate=rate), *stream(READY, rate=rate)]
    assert gap(requests) == pytest.approx(0.01)
    assert switch_over(requests, 3.0) == 0


@pytest.mark.parametrize(("begin", "end"), [(4.0, 7.0), (0.0, 3.0), (7.0, 10.0)])
def test_a_stall_of_the_backends_is_not_hidden_by_what_caches_answer(
    begin: float, end: float
) -> None:
    requests = [*stream(FILE), *stream(READY, stalled(begin, end))]
    assert longest_gap(requests) == pytest.approx((end - begin, begin))
    assert switch_over(requests, begin) == pytest.approx(end - begin)


def test_a_stall_of_one_client_is_not_hidden_by_another() -> None:
    requests = [*stream(FILE, client="client1"), *stream(FILE, stalled(4.0, 7.0), client="client2")]
    assert gap(requests) == pytest.approx(3.0)


def test_one_late_answer_is_no_outage_while_later_ones_come() -> None:
    requests = stream(FILE, stalled(4.0, 4.05))
    requests[40] = Request(due=4.0, ended=5.0, url=FILE)
    assert gap(requests) == pytest.approx(0.11)
    assert switch_over(requests, 3.95) == 0


def test_slow_answers_that_follow_each_other_are_no_gap_but_the_first_wait_is() -> None:
    def slow(due: float) -> tuple[float, str]:
        return due + 1.0, ""

    # As big files: one is answered all the time.
    assert longest_gap(stream(FILE, slow)) == pytest.approx((1.0, 0.0))


def test_an_outage_counts_from_the_fault_when_the_first_request_meets_it() -> None:
    assert switch_over(stream(READY, stalled(3.0, 3.5)), 2.95) == pytest.approx(0.55)
    # Later: from its own beginning.
    assert switch_over(stream(READY, stalled(6.0, 6.5)), 2.95) == pytest.approx(0.5)


def test_failures_close_together_are_one_outage_and_others_are_not() -> None:
    requests = stream(READY)
    for number in (40, 42, 44, 46):
        requests[number] = Request(due=number / 10, ended=number / 10, url=READY, error="no route")
    assert switch_over(requests, 3.05) == pytest.approx(0.71)
    requests[90] = Request(due=9.0, ended=9.0, url=READY, error="no route")
    assert switch_over(requests, 3.05) == pytest.approx(0.71)


def test_a_request_that_was_never_answered_waited_until_it_failed() -> None:
    requests = stream(READY)
    requests[-1] = Request(due=9.9, ended=24.9, url=READY, error="timed out")
    assert gap(requests) == pytest.approx(15.0)
    assert gap(stream(READY, refused(0, 99))) == pytest.approx(9.9)


def test_of_nothing_there_is_no_gap() -> None:
    assert longest_gap([]) is None
    assert switch_over([], 3.0) == 0
