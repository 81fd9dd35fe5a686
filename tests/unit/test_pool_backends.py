"""The threads that probe: who is watched, and what of a probe that does not end."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.unit.pools import servers

from modhaven.pool import backends
from modhaven.pool.backends import Backends
from modhaven.pool.health import Seen
from modhaven.pool.probe import Answer
from modhaven.pool.settings import PoolConfig, Probe, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAST = Probe(interval_seconds=0.05, timeout_seconds=0.1)


class FakeProber:
    """Answers what ``answer`` gives, and counts."""

    answer: Callable[[str], Answer]
    made: list[str]
    closed: list[str]
    led: dict[str, list[str]]

    def __init__(self, server: Server, _tls: object, _seconds: float, _address: str) -> None:
        self._name = server.name
        self.made.append(server.name)

    def ask(self) -> Answer:
        return FakeProber.answer(self._name)

    def lead_to(self, addresses: list[str]) -> None:
        self.led[self._name] = addresses

    def close(self) -> None:
        self.closed.append(self._name)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backends]:
    FakeProber.answer = staticmethod(lambda _name: Answer())
    FakeProber.made, FakeProber.closed, FakeProber.led = [], [], {}
    monkeypatch.setattr(backends, "Prober", FakeProber)
    made = Backends(threading.Event().set)
    yield made
    made.stop()
    wait("no thread", lambda: not any(t.name.startswith("probe ") for t in threading.enumerate()))


def config(*names: str, probe: Probe = FAST) -> PoolConfig:
    return PoolConfig(servers=servers(*names), probe=probe)


def wait(what: str, reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.005)


def states(watched: Backends) -> list[str]:
    return [seen.state for seen in watched.seen().values()]


def test_each_is_probed(watched: Backends) -> None:
    FakeProber.answer = staticmethod(lambda name: Answer(error="no" if name == "b" else ""))
    watched.configure(config("a", "b", "c"), {"b": Seen(state="up")})
    wait("states", lambda: states(watched) == ["up", "down", "up"])


def test_where_names_lead_is_looked_up_again_and_again(
    watched: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_NAMED_SECONDS", 0.01)
    found = ["10.0.3.9"]
    monkeypatch.setattr("modhaven.pool.names.addresses", lambda _server: list(found))
    by_name = replace(servers("a")[0], address="a.example")
    watched.configure(PoolConfig(servers=(by_name, *servers("b", "c")[1:]), probe=FAST), {})
    wait("an address", lambda: FakeProber.led == {"a": ["10.0.3.9"]})
    found[:] = ["10.0.3.8"]
    wait("another address", lambda: FakeProber.led == {"a": ["10.0.3.8"]})


def test_who_stays_is_left_alone_when_others_change(watched: Backends) -> None:
    watched.configure(config("a", "b"), {})
    wait("both up", lambda: states(watched) == ["up", "up"])
    since = watched.seen()["a"].since
    watched.configure(config("a", "b", "c"), {})
    assert list(watched.seen()) == ["a", "b", "c"]
    watched.configure(config("a"), {})
    wait("b and c to end", lambda: sorted(FakeProber.closed) == ["b", "c"])
    assert FakeProber.made == ["a", "b", "c"]
    assert watched.seen()["a"].since == since


def test_other_bounds_keep_the_state_and_another_place_does_not(watched: Backends) -> None:
    watched.configure(config("a", "b"), {})
    wait("both up", lambda: states(watched) == ["up", "up"])
    block = threading.Event()
    FakeProber.answer = staticmethod(lambda _name: (block.wait(5), Answer())[1])
    slower = Probe(interval_seconds=0.06, timeout_seconds=60)
    watched.configure(config("a", "b", probe=slower), {})
    assert states(watched) == ["up", "up"]
    # b gets the first address and a the second.
    watched.configure(config("b", "a", probe=slower), {})
    assert states(watched) == ["joining", "joining"]
    block.set()


def test_a_probe_that_does_not_end_is_a_bad_answer(watched: Backends) -> None:
    block = threading.Event()
    FakeProber.answer = staticmethod(lambda _name: (block.wait(20), Answer())[1])
    watched.configure(config("a"), {"a": Seen(state="up")})
    wait("a down", lambda: states(watched) == ["down"])
    assert watched.seen()["a"].error == "no whole answer within 0.2 s"
    assert watched.seen()["a"].silent_since > 0
    block.set()
    wait("a up", lambda: states(watched) == ["up"])


def test_an_unforeseen_error_is_a_bad_answer_and_the_thread_lives(
    watched: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(name: str) -> Answer:
        raise RuntimeError(name)

    FakeProber.answer = staticmethod(fails)
    watched.configure(config("a"), {"a": Seen(state="up")})
    wait("a down", lambda: states(watched) == ["down"])
    assert "a cannot be probed" in caplog.text
    FakeProber.answer = staticmethod(lambda _name: Answer())
    wait("a up", lambda: states(watched) == ["up"])


def test_many_changes_at_once_end_with_the_last(watched: Backends) -> None:
    for number in range(60):
        watched.configure(config(*(f"b{n}" for n in range(number % 7 + 1))), {})
        watched.seen()
    watched.configure(config("x", "y"), {})
    wait("both up", lambda: states(watched) == ["up", "up"])
    names = {t.name for t in threading.enumerate() if t.name.startswith("probe ")}
    wait("only two threads", lambda: {
        t.name for t in threading.enumerate() if t.name.startswith("probe ")
    } == {"probe x", "probe y"})  # fmt: skip
    assert names >= {"probe x", "probe y"}


def test_a_huge_pool_is_probed_less_often() -> None:
    few = backends._Watched(servers("a")[0], config("a"), None, print)
    many = backends._Watched(servers("a")[0], config(*(f"b{n}" for n in range(2000))), None, print)
    assert (few._pause, many._pause) == (0.05, 2.0)
