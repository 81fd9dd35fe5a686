"""The chain's patience, its groups, private modules, and hedging: against real sockets."""

from __future__ import annotations

import io
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import FakeUpstream, Reply

from modhaven import config
from modhaven.chain import Chain, ChainError
from modhaven.settings import BreakerConfig, Hedge, Timeouts
from modhaven.transport import make_session
from modhaven.upstream import Deadline, Turn, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modhaven.chain_spec import UpstreamSpec

    Make = Callable[[Any], list[Upstream]]

PATIENCE = 0.3
TIMEOUTS = Timeouts(
    connect_seconds=0.5, patience_seconds=PATIENCE, first_byte_seconds=3, total_seconds=5
)
HEDGE = Hedge(min_seconds=0.05, max_seconds=0.1)


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:

        def one(spec: UpstreamSpec) -> Upstream:
            session = make_session(ca_file=Path("/nonexistent"), pool_size=4, spec=spec)
            stack.enter_context(session)
            return Upstream(
                spec,
                session=session,
                timeouts=TIMEOUTS,
                retries=0,
                breaker=BreakerConfig(failures=3, open_seconds=0.4),
            )

        def all_of(chain: Any) -> list[Upstream]:
            return [one(spec) for spec in config.from_mapping({"upstreams": chain}).upstreams]

        yield all_of


@pytest.fixture
def fake3() -> Iterator[FakeUpstream]:
    upstream = FakeUpstream()
    yield upstream
    upstream.close()


def use(turn: Turn) -> bytes:
    sink = io.BytesIO()
    turn.fetch("x", sink, limit=1000, deadline=Deadline.after(20))
    return sink.getvalue()


def took(start: float) -> float:
    return time.monotonic() - start


def test_a_black_hole_costs_the_first_request_its_patience_and_later_ones_nothing(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.default = Reply(hang=True)
    fake2.script("x", Reply(body=b"second"))
    chain = Chain(make(f"{fake.url}|{fake2.url}"))
    start = time.monotonic()
    assert chain.walk(use) == (b"second", fake2.name)
    assert PATIENCE <= took(start) < PATIENCE + 0.5
    start = time.monotonic()
    for _ in range(5):
        assert chain.walk(use) == (b"second", fake2.name)
    assert took(start) < PATIENCE


def test_mirrors_whose_faults_take_turns_are_asked_again(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    """The one that is left out is well by now, while the other has just begun to fail."""
    upstreams = make(f"{fake.url}|{fake2.url}")
    fake2.default = Reply(status=503)
    for _ in range(3):
        upstreams[0].breaker.failed("503", timed_out=False)
    fake.script("x", Reply(body=b"first"))
    assert Chain(upstreams, rounds=2).walk(use) == (b"first", fake.name)


def test_what_will_not_pass_is_not_asked_for_again(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    upstreams = make(f"{fake.url}|{fake2.url}")
    # One says that it is not there; what the other says may pass, but there is an answer of a kind.
    fake.script("x", Reply(status=404))
    fake2.script("x", Reply(status=503))
    with pytest.raises(ChainError) as failed:
        Chain(upstreams, rounds=3).walk(use)
    assert not failed.value.not_found
    assert (fake.counts["x"], fake2.counts["x"]) == (1, 1)
    # Nor is anything that everyone refuses for good.
    fake.script("x", Reply(status=403))
    fake2.script("x", Reply(status=403))
    with pytest.raises(ChainError):
        Chain(upstreams, rounds=3).walk(use)
    assert (fake.counts["x"], fake2.counts["x"]) == (2, 2)


def test_everyone_is_asked_once_more_when_everyone_fails_for_a_moment(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    upstreams = make(f"{fake.url},{fake2.url}")
    fake.script("x", Reply(status=503), Reply(body=b"well"))
    assert Chain(upstreams, rounds=2).walk(use) == (b"well", fake.name)
    # While all are known to be down, nobody waits.
    fake.script("x", Reply(status=503))
    for upstream in upstreams:
        for _ in range(3):
            upstream.breaker.failed("503", timed_out=False)
    before = fake.counts["x"]
    with pytest.raises(ChainError):
        Chain(upstreams, rounds=5).walk(use)
    assert fake.counts["x"] == before + 1


def test_when_nobody_answers_in_a_hurry_the_living_are_given_time(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.default = Reply(hang=True)
    # Its base address answers at once, so that its probe does.
    fake2.script("x", Reply(body=b"slow", delay_seconds=1))
    chain = Chain(make(f"{fake.url}|{fake2.url}"))
    start = time.monotonic()
    assert chain.walk(use) == (b"slow", fake2.name)
    assert took(start) < 2.5
    assert (fake.counts["x"], fake2.counts["x"]) == (1, 2)


def test_also_those_whose_probes_are_as_slow_are_given_time_in_the_end(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.default = Reply(body=b"slow", delay_seconds=1)
    fake2.default = Reply(body=b"slow", delay_seconds=1)
    chain = Chain(make(f"{fake.url}|{fake2.url}"))
    assert chain.walk(use) == (b"slow", fake.name)


def test_a_slow_answer_of_not_found_is_one(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.script("x", Reply(status=404, delay_seconds=1))
    with pytest.raises(ChainError) as caught:
        Chain(make(f"{fake.url}|{fake2.url}")).walk(use)
    assert caught.value.not_found
    assert [attempt.upstream for attempt in caught.value.attempts] == [fake.name, fake2.name]


def test_after_not_found_nobody_waits_for_a_black_hole(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.default = Reply(hang=True)
    chain = Chain(make(f"{fake.url}|{fake2.url}"))
    start = time.monotonic()
    with pytest.raises(ChainError) as caught:
        chain.walk(use)
    assert took(start) < PATIENCE + 0.9
    # A failure outranks it: the black hole may have had it.
    assert not caught.value.not_found
    with pytest.raises(ChainError) as caught:
        chain.walk(use)
    assert caught.value.not_found


def test_without_persistence_nobody_is_waited_for(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.default = fake2.default = Reply(hang=True)
    start = time.monotonic()
    with pytest.raises(ChainError) as caught:
        Chain(make(f"{fake.url}|{fake2.url}")).walk(use, persist=False)
    assert caught.value.timed_out
    assert took(start) < 2 * PATIENCE + 0.5


def test_the_only_upstream_is_not_hurried(make: Make, fake: FakeUpstream) -> None:
    fake.script("x", Reply(body=b"slow", delay_seconds=2 * PATIENCE))
    assert Chain(make(fake.url)).walk(use) == (b"slow", fake.name)
    assert fake.counts["x"] == 1


def test_patience_is_for_the_first_byte_not_for_the_body(make: Make, fake: FakeUpstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
                for _ in range(2):
                    time.sleep(2 * PATIENCE)
                    connection.sendall(b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        slow = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert Chain(make(f"{slow}|{fake.url}")).walk(use)[0] == b"xx"
        thread.join()


def test_an_upstream_whose_probes_go_well_but_requests_time_out_stays_out(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.script("x", Reply(hang=True))
    fake2.script("x", Reply(body=b"second"))
    chain = Chain(make(f"{fake.url}|{fake2.url}"))
    for _ in range(12):
        assert chain.walk(use)[0] == b"second"
        time.sleep(0.02)
    assert fake.counts["x"] <= 5


def test_without_health_check_a_request_is_the_probe(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.script("x", Reply(hang=True))
    fake2.script("x", Reply(body=b"second"))
    chain = Chain(make([{"url": fake.url, "health_check": False}, {"url": fake2.url}]))
    assert chain.walk(use) == (b"second", fake2.name)
    assert chain.walk(use) == (b"second", fake2.name)
    assert dict(fake.counts) == {"x": 1}
    fake.script("x", Reply(body=b"first"))
    time.sleep(0.45)
    assert chain.walk(use) == (b"first", fake.name)
    assert dict(fake.counts) == {"x": 2}


def test_private_modules_are_asked_for_only_where_patterns_name_them(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.default = fake2.default = Reply(body=b"here")
    upstreams = make([{"url": fake.url}, {"url": fake2.url, "modules": "*.corp.x"}])
    chain = Chain(upstreams, private="*.corp.x,other.x")
    assert chain.walk(use, module="git.corp.x/a") == (b"here", fake2.name)
    assert not fake.counts
    assert chain.walk(use, module="github.com/a/b") == (b"here", fake.name)
    with pytest.raises(ChainError) as caught:
        chain.walk(use, module="other.x/a")
    assert caught.value.off
    assert caught.value.reason == "it is private and no upstream is for it"


# --- hedging


def test_a_slow_upstream_is_hedged_and_the_first_good_answer_wins(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.script("x", Reply(body=b"first", delay_seconds=0.25))
    fake2.script("x", Reply(body=b"second"))
    chain = Chain(make(f"{fake.url}|{fake2.url}"), hedge=HEDGE)
    start = time.monotonic()
    assert chain.walk(use, hedged=True) == (b"second", fake2.name)
    assert took(start) < 0.24
    assert chain.walk(use) == (b"first", fake.name)


def test_a_quick_upstream_is_not_hedged(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.script("x", Reply(body=b"first"))
    chain = Chain(make(f"{fake.url}|{fake2.url}"), hedge=HEDGE)
    for _ in range(10):
        assert chain.walk(use, hedged=True) == (b"first", fake.name)
    assert fake2.counts["x"] <= 2


def test_a_hedged_failure_is_followed_at_once(
    make: Make,
    fake: FakeUpstream,
    fake2: FakeUpstream,
    fake3: FakeUpstream,
) -> None:
    fake.script("x", Reply(status=500))
    fake3.script("x", Reply(body=b"third"))
    slow = Hedge(min_seconds=5, max_seconds=5)
    chain = Chain(make(f"{fake.url}|{fake2.url}|{fake3.url}"), hedge=slow)
    start = time.monotonic()
    assert chain.walk(use, hedged=True) == (b"third", fake3.name)
    assert took(start) < 1


def test_nobody_is_hedged_across_a_comma(
    make: Make,
    fake: FakeUpstream,
    fake2: FakeUpstream,
    fake3: FakeUpstream,
) -> None:
    fake.script("x", Reply(status=404, delay_seconds=0.2))
    fake2.script("x", Reply(body=b"second", delay_seconds=0.2))
    chain = Chain(make(f"{fake.url}|{fake2.url},{fake3.url}"), hedge=HEDGE)
    assert chain.walk(use, hedged=True) == (b"second", fake2.name)
    assert not fake3.counts
    fake2.script("x", Reply(status=500))
    with pytest.raises(ChainError) as caught:
        chain.walk(use, hedged=True)
    assert not caught.value.not_found
    assert not fake3.counts


def test_hedging_is_off_by_configuration(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.script("x", Reply(body=b"first", delay_seconds=0.2))
    chain = Chain(make(f"{fake.url}|{fake2.url}"), hedge=Hedge(enabled=False, max_seconds=0.3))
    assert chain.walk(use, hedged=True) == (b"first", fake.name)
    assert not fake2.counts


def test_a_hedged_black_hole_is_left_out_afterwards_and_slow_ones_are_given_time(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.default = Reply(hang=True)
    fake2.script("x", Reply(body=b"slow", delay_seconds=0.8))
    upstreams = make(f"{fake.url}|{fake2.url}")
    assert Chain(upstreams, hedge=HEDGE).walk(use, hedged=True) == (b"slow", fake2.name)
    assert upstreams[0].breaker.is_open
    assert not upstreams[1].breaker.is_open
