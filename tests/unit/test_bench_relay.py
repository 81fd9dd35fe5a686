"""The benchmarks' relay: it delays, and turns into a black hole, as it says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import requests
from tests.bench.relay import Relay
from tests.conftest import Reply

if TYPE_CHECKING:
    from tests.conftest import FakeUpstream


def test_it_delays_connecting_and_each_request(fake: FakeUpstream) -> None:
    fake.default = Reply(body=b"hello")
    with Relay(int(fake.name.rpartition(":")[2]), delay_seconds=0.1) as relay:
        with requests.Session() as session:
            began = time.monotonic()
            for _ in range(3):
                assert session.get(f"http://127.0.0.1:{relay.port}/m").content == b"hello"
        assert time.monotonic() - began >= 0.4


def test_a_black_hole_takes_what_it_is_given_and_can_be_undone(fake: FakeUpstream) -> None:
    fake.default = Reply(body=b"hello")
    with Relay(int(fake.name.rpartition(":")[2])) as relay, requests.Session() as session:
        url = f"http://127.0.0.1:{relay.port}/m"
        assert session.get(url).content == b"hello"
        relay.go_dark()
        # On the connection that is open, and on a new one.
        for ask in (session.get, requests.get):
            with pytest.raises(requests.ReadTimeout):
                ask(url, timeout=0.3)
        relay.go_dark(dark=False)
        assert requests.get(url, timeout=10).content == b"hello"
