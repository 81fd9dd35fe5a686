"""When backups serve beside the others."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modhaven.pool.settings import Surge
from modhaven.pool.surge import Demand

BOUNDS = Surge(percent=200, minimum_connections=100, quiet_seconds=60, baseline_seconds=600)


class Edge:
    """A clock and a demand."""

    def __init__(self, bounds: Surge = BOUNDS) -> None:
        self.now = 0.0
        self.demand = Demand(bounds, now=0.0)

    def run(self, connections: int, seconds: float, step: float = 0.25) -> list[float]:
        """Have so many connections for so long; return the moments at which a surge turned."""
        turned, end = [], self.now + seconds
        while self.now < end:
            self.now += step
            if self.demand.note(connections, self.now):
                turned.append(self.now)
        return turned


def test_a_surge_begins_and_ends_once_each() -> None:
    edge = Edge()
    assert edge.run(100, 60) == []
    begun = edge.run(1000, 30)
    assert len(begun) == 1
    assert edge.demand.surging
    # Not at the first figure, but within what "now" means.
    assert 60 < begun[0] < 66
    over = edge.run(100, 300)
    assert len(over) == 1
    # High until the mean has fallen, then the quiet time.
    assert 90 + 60 < over[0] < 90 + 60 + 15


def test_below_the_percentage_is_no_surge() -> None:
    edge = Edge()
    edge.run(100, 60)
    assert edge.run(290, 20) == []


def test_below_the_minimum_is_no_surge() -> None:
    edge = Edge()
    edge.run(1, 60)
    assert edge.run(100, 60) == []
    assert edge.run(130, 60) != []


def test_a_surge_does_not_become_what_is_usual() -> None:
    edge = Edge()
    edge.run(100, 60)
    edge.run(1000, 3600)
    assert edge.demand.surging
    assert edge.demand.baseline < 300


@pytest.mark.parametrize(
    ("usual", "then", "minutes"), [(100, 400, 35), (100, 1000, 92), (0, 150, 121), (5, 400, 119)]
)
def test_what_stays_is_no_surge(usual: int, then: int, minutes: float) -> None:
    edge = Edge()
    edge.run(usual, 600)
    begun, ended = edge.run(then, 3 * 3600)
    # As docs/how-it-works.md says; what is quiet after it is a minute here.
    assert (ended - begun) / 60 == pytest.approx(minutes - 1, abs=1)


def test_what_grows_slowly_becomes_what_is_usual() -> None:
    edge = Edge()
    edge.run(100, 60)
    for connections in range(100, 1000, 10):
        assert edge.run(connections, 120) == []
    assert edge.demand.baseline > 800


def test_a_second_wave_within_the_quiet_time_is_the_same_surge() -> None:
    edge = Edge()
    edge.run(100, 60)
    assert len(edge.run(1000, 30)) == 1
    assert edge.run(100, 40) == []
    assert edge.run(1000, 30) == []
    assert edge.demand.surging


@pytest.mark.parametrize("steps", [[0.05], [0.25], [5.0], [0.01, 7.0, 0.4]])
def test_how_often_it_is_asked_changes_little(steps: list[float]) -> None:
    edge = Edge()
    moments: list[float] = []
    for step in itertools.cycle(steps):
        moments += edge.run(100 if edge.now < 60 else 1000, 1e-6, step)
        if edge.now > 120:
            break
    assert len(moments) == 1
    assert 60 <= moments[0] < 60 + 2 * max(steps) + 2


def test_bounds_may_change_and_what_is_usual_stays() -> None:
    edge = Edge()
    edge.run(100, 60)
    edge.run(1000, 30)
    edge.demand.bounds = Surge(percent=2000, quiet_seconds=1)
    assert len(edge.run(1000, 5)) == 1
    assert not edge.demand.surging
    assert edge.demand.baseline < 130


def test_it_goes_on_where_the_last_one_ended() -> None:
    demand = Demand(BOUNDS, now=0.0, baseline=100, surging=True)
    assert not demand.note(1000, 0.25)
    assert demand.surging
    assert demand.baseline == pytest.approx(100, abs=0.1)


@given(
    st.integers(min_value=0, max_value=100_000),
    st.lists(st.floats(min_value=0, max_value=10_000), min_size=1, max_size=50),
    st.integers(min_value=10, max_value=1000),
)
def test_constant_load_is_never_a_surge(
    connections: int, pauses: list[float], percent: int
) -> None:
    now, demand = 0.0, Demand(Surge(percent=percent, minimum_connections=1), now=0.0)
    for pause in pauses:
        now += pause
        assert not demand.note(connections, now)
        assert not demand.surging
        assert demand.baseline == pytest.approx(connections)
