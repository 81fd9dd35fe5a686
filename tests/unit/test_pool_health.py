"""A backend's state from its answers."""

from __future__ import annotations

import threading
import time

import pytest

from modhaven.pool.health import Health, Seen
from modhaven.pool.probe import Answer
from modhaven.pool.settings import Probe

GOOD, BAD = Answer(in_flight=3, in_flight_at=7.0), Answer(error="503 the disk is full")


def states(health: Health, answers: str) -> str:
    """Give ``+`` for good and ``-`` for bad answers; return the first letters of the states."""
    found = []
    for sign in answers:
        before = health.seen.state
        turned = health.note(GOOD if sign == "+" else BAD)
        assert turned == (before != health.seen.state)
        found.append(health.seen.state[0])
    return "".join(found)


@pytest.mark.parametrize(
    ("begin", "answers", "expected"),
    [
        # The first good answer joins, however many bad ones there were.
        ("joining", "+", "u"),
        ("joining", "---+", "jjju"),
        # Two bad in a row, two good in a row.
        ("up", "-+-+--", "uuuuud"),
        ("down", "+-+-++", "dddddu"),
        ("up", "--++", "uddu"),
        ("up", "----+-++", "udddd" + "ddu"),
        ("joining", "+--+++", "uudduu"),
    ],
)
def test_hysteresis(begin: str, answers: str, expected: str) -> None:
    health = Health(Probe(rise=2, fall=2), Seen(state=begin))
    assert states(health, answers) == expected


def test_the_bounds_are_those_of_the_configuration() -> None:
    health = Health(Probe(rise=3, fall=1), Seen(state="up"))
    assert states(health, "-++-+++") == "ddddddu"


def test_the_next_probe_is_soon_while_answer_and_state_disagree() -> None:
    health = Health(Probe(rise=2, fall=2), Seen(state="up"))
    settled = []
    for answer in (GOOD, BAD, BAD, BAD, GOOD, GOOD):
        health.note(answer)
        settled.append(health.settled)
    assert settled == [True, False, True, True, False, True]


def test_the_last_error_stays_known_when_it_is_well_again() -> None:
    health = Health(Probe(), Seen(state="up"))
    health.note(BAD)
    assert (health.seen.state, health.seen.error) == ("up", "503 the disk is full")
    at = health.seen.error_at
    for _ in range(3):
        health.note(GOOD)
    assert (health.seen.error, health.seen.error_at) == ("503 the disk is full", at)
    assert (health.seen.in_flight, health.seen.in_flight_at) == (3, 7.0)


def test_it_is_gone_when_it_refuses_connections_or_is_silent_for_long() -> None:
    health = Health(Probe(timeout_seconds=0.02), Seen(state="up"))
    silent, refused = Answer(error="x", silent=True), Answer(error="x", silent=True, refused=True)
    begun = time.monotonic()
    while not health.seen.gone:
        health.note(silent)
        time.sleep(0.005)
    assert 0.2 <= time.monotonic() - begun < 1
    found = []
    # Not without a break; and one that refuses connections is gone at once.
    for answer in (BAD, silent, refused, GOOD):
        health.note(answer)
        found.append(health.seen.gone)
    assert found == [False, False, True, False]
    assert health.seen.silent_since == 0


def test_since_is_when_the_state_changed() -> None:
    health = Health(Probe(fall=2), Seen(state="up", since=1.0))
    health.note(BAD)
    assert health.seen.since == 1.0
    health.note(BAD)
    assert health.seen.since > 1.0


def test_what_is_seen_fits_together_while_it_changes() -> None:
    """Read in one thread while another one writes: never half of one state and half of another."""
    health = Health(Probe(rise=1, fall=1), Seen(state="up"))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            health.note(Answer(error="x", in_flight=None, in_flight_at=1.0))
            health.note(Answer(in_flight=1, in_flight_at=2.0))

    writer = threading.Thread(target=write)
    writer.start()
    found = set()
    for _ in range(20_000):
        seen = health.seen
        found.add((seen.state, seen.in_flight, seen.in_flight_at))
    stop.set()
    writer.join()
    assert found <= {("up", None, 0.0), ("down", None, 1.0), ("up", 1, 2.0)}
