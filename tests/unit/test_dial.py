"""Connecting: bounded as a whole, however silent the name server or an address is."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from modhaven import dial
from modhaven.dial import Resolver


def test_a_silent_name_server_costs_no_more_than_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = threading.Event()
    asked: list[str] = []

    def silent(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        released.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    resolver = Resolver()
    start = time.monotonic()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            resolver.resolve("example.com", 443, seconds=0.1)
    assert time.monotonic() - start < 1
    # However many wait, one thread is stuck. Other tests' probes may look up addresses meanwhile.
    assert asked.count("example.com") == 1
    released.set()


def test_an_unknown_name_is_its_own_error() -> None:
    with pytest.raises(socket.gaierror):
        dial.dial("nowhere.invalid", 443, seconds=5)


def test_an_address_that_refuses_or_is_silent_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch, refused_url: str
) -> None:
    refused = int(refused_url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as full:
        # A full backlog: the kernel drops what comes, as a black hole does.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.settimeout(0)
            filler.connect_ex(full.getsockname())
        addresses = [("127.0.0.1", refused), full.getsockname(), server.getsockname()]
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 0, "", a) for a in addresses],
        )
        start = time.monotonic()
        with dial.dial("example.com", 443, seconds=1) as connection:
            assert connection.getpeername() == server.getsockname()
            assert connection.gettimeout() == 1
        assert time.monotonic() - start < 1
        for filler in fillers:
            filler.close()
