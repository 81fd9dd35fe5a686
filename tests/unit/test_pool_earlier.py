"""What a pool manager knows when it starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modhaven.pool import earlier, status
from modhaven.pool.drains import Drain
from modhaven.pool.health import Seen
from modhaven.pool.settings import Server
from modhaven.pool.status import PoolStatus

BY_NAME = Server(name="a", address="a.example", port=80)
BY_ADDRESS = Server(name="a", address="10.0.3.1", port=80)


def known(server: Server, line: str, last: PoolStatus | None = None) -> Seen | None:
    live = f"upstream x {{\n    server {line}\n    server 10.0.3.9:80 max_fails=2;  # other\n}}\n"
    return earlier.seen([server], live, last).get(server.name)


def told(server: Server, seen: Seen, *, out: str = "", drain: Drain | None = None) -> PoolStatus:
    return PoolStatus(time=1.0, servers=(status.of_server(server, seen, out=out, drain=drain),))


@pytest.mark.parametrize(
    ("server", "line", "state", "address"),
    [
        (BY_NAME, "10.0.3.1:80 max_fails=0;  # a (a.example)", "up", "10.0.3.1"),
        (BY_NAME, "[fd00::1]:80 max_fails=0 down;  # a (a.example): down", "down", "fd00::1"),
        # As an older release wrote it.
        (BY_NAME, "a.example:80 max_fails=0;  # a", "up", ""),
        (BY_ADDRESS, "10.0.3.1:80 max_fails=0;  # a", "up", ""),
        (BY_ADDRESS, "10.0.3.1:80 weight=3 max_fails=0 down;  # a: drained", "down", ""),
        (BY_ADDRESS, "10.0.3.1:80 max_fails=0 down;  # a: resting", "up", ""),
        # Asked although it was down.
        (BY_ADDRESS, "10.0.3.1:80 weight=3 max_fails=2 fail_timeout=5s;  # a", "down", ""),
    ],
)
def test_without_a_status_nginx_was_told_enough(
    server: Server, line: str, state: str, address: str
) -> None:
    found = known(server, line)
    assert found is not None
    assert found == Seen(state=state, address=address, since=found.since)


@pytest.mark.parametrize(
    ("server", "line"),
    [
        # By another name it may be somewhere else by now.
        (BY_NAME, "10.0.3.1:80 max_fails=0;  # a (old.example)"),
        (BY_NAME, "10.0.3.1:80 max_fails=0;  # a"),
        (BY_NAME, "10.0.3.1:81 max_fails=0;  # a (a.example)"),
        (BY_ADDRESS, "10.0.3.2:80 max_fails=0;  # a"),
        (BY_ADDRESS, "10.0.3.1:8443 max_fails=0;  # a"),
        (BY_ADDRESS, "10.0.3.1:80 max_fails=0;  # b"),
    ],
)
def test_nothing_is_known_of_who_was_elsewhere(server: Server, line: str) -> None:
    assert known(server, line) is None
    elsewhere = told(replace(server, address="10.0.3.77"), Seen(state="up"))
    assert known(server, line, elsewhere) is None


LINE = "10.0.3.1:80 max_fails=2 fail_timeout=5s;  # a"
WELL = Seen(state="up", since=7.0, error="503 full", error_at=5.0)


@pytest.mark.parametrize("state", ["up", "down", "joining"])
def test_what_was_told_last_is_known_with_its_since_and_its_error(state: str) -> None:
    # One that is told to be `kept` is down.
    seen = replace(WELL, state=state)
    assert known(BY_ADDRESS, LINE, told(BY_ADDRESS, seen)) == seen


def test_one_that_is_drained_may_be_ready() -> None:
    drain = Drain(reason="x", since=6.0)
    found = known(BY_ADDRESS, LINE, told(BY_ADDRESS, WELL, out="drained", drain=drain))
    assert found == replace(WELL, since=6.0)


def test_one_with_a_name_is_where_nginx_was_told() -> None:
    line = "10.0.3.1:80 max_fails=0 down;  # a (a.example): down"
    seen = replace(WELL, state="down")
    assert known(BY_NAME, line, told(BY_ADDRESS, seen)) == replace(seen, address="10.0.3.1")


def test_who_is_drained_as_far_as_nginx_was_told() -> None:
    live = (
        "    server 10.0.3.1:80 max_fails=0 down;  # a: drained\n"
        "    server 10.0.3.2:80 max_fails=0 down;  # b: down\n"
        "    server 10.0.3.3:80 max_fails=0;  # c\n"
    )
    assert list(earlier.drained(live)) == ["a"]
