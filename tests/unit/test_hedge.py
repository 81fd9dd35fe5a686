"""Racing calls: who begins when, who wins, what is raised."""

from __future__ import annotations

import contextvars
import time
from typing import TYPE_CHECKING

import pytest

from modhaven.hedge import race
from modhaven.latency import Latencies

if TYPE_CHECKING:
    from collections.abc import Callable


def after(seconds: float, result: str | Exception) -> Callable[[], str]:
    def call() -> str:
        time.sleep(seconds)
        if isinstance(result, Exception):
            raise result
        return result

    return call


def test_the_quickest_wins() -> None:
    calls = [after(0.5, "a"), after(0.1, "b")]
    assert race(calls, [0.0, 0.0], passes=KeyError) == (1, "b")


def test_the_second_begins_only_when_the_first_is_slow() -> None:
    begun: list[str] = []

    def second() -> str:
        begun.append("b")
        return "b"

    calls = [after(0.02, "a"), second]
    assert race(calls, [1.0, 1.0], passes=KeyError) == (0, "a")
    assert begun == []


def test_a_failure_begins_the_next_at_once() -> None:
    start = time.monotonic()
    calls = [after(0, KeyError()), after(0, "b")]
    assert race(calls, [9.0, 9.0], passes=KeyError) == (1, "b")
    assert time.monotonic() - start < 2


def test_when_all_fail_there_is_no_winner() -> None:
    assert race([after(0, KeyError()), after(0, KeyError())], [0, 0], passes=KeyError) is None
    assert race([], [], passes=KeyError) is None


def test_other_errors_are_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        race([after(0, ZeroDivisionError()), after(1, "b")], [0, 0], passes=KeyError)


def test_it_is_bounded() -> None:
    start = time.monotonic()
    assert race([after(2, "a")], [0], passes=KeyError, seconds=0.1) is None
    assert time.monotonic() - start < 1


def test_calls_see_the_callers_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("seen")
    assert race([variable.get], [0], passes=KeyError) == (0, "seen")


def test_what_is_usual_takes_some_answers_to_tell() -> None:
    latencies = Latencies()
    for _ in range(4):
        latencies.note(0.1)
    assert latencies.usual is None
    for _ in range(60):
        latencies.note(0.1)
    latencies.note(5)
    assert latencies.usual == 0.1
