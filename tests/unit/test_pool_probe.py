"""One probe of one backend: what it says, and how long it may take."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import FakeUpstream, Reply

from modhaven.pool import probe
from modhaven.pool.probe import Prober
from modhaven.pool.settings import TLS, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Protocol

    Serve = Callable[[Callable[[socket.socket], None]], str]

    class MakeProber(Protocol):
        def __call__(
            self, name: str, *, seconds: float = ..., tls: TLS | None = ..., address: str = ...
        ) -> Prober: ...


STATUS = b"Active connections: 5 \nReading: 0 Writing: 3 Waiting: 2 \n"


@pytest.fixture
def prober() -> Iterator[MakeProber]:
    made = []

    def make(
        name: str, *, seconds: float = 1.0, tls: TLS | None = None, address: str = ""
    ) -> Prober:
        host, _, port = name.rpartition(":")
        server = Server(name="b", address=host, port=int(port))
        made.append(Prober(server, tls, seconds, address))
        return made[-1]

    yield make
    for one in made:
        one.close()


def serve_forever(listener: socket.socket, work: Callable[[socket.socket], None]) -> None:
    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                work(connection)

    threading.Thread(target=run, daemon=True).start()


@pytest.fixture
def raw() -> Iterator[Serve]:
    """Serve each connection with a function; the address is returned."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(work: Callable[[socket.socket], None]) -> str:
            serve_forever(listener, work)
            return f"127.0.0.1:{listener.getsockname()[1]}"

        yield serve
        listener.shutdown(socket.SHUT_RDWR)


def test_ready_and_busy(prober: MakeProber, fake: FakeUpstream) -> None:
    fake.script("readyz", Reply(body=b"ready\n"))
    fake.script("-/status", Reply(body=STATUS))
    before = time.time()
    asked = prober(fake.name)
    answer = asked.ask()
    assert (answer.error, answer.in_flight) == ("", 2)
    assert before <= answer.in_flight_at <= time.time()
    # Asked again at once: whether it is ready; how busy it is, less often.
    assert asked.ask() == answer
    assert fake.counts == {"readyz": 2, "-/status": 1}


def test_who_does_not_say_how_busy_it_is_is_ready_all_the_same(
    prober: MakeProber, fake: FakeUpstream
) -> None:
    fake.script("readyz", Reply())
    answer = prober(fake.name).ask()
    assert (answer.error, answer.in_flight) == ("", None)


def test_who_is_slow_to_say_how_busy_it_is_is_ready_all_the_same(
    prober: MakeProber, fake: FakeUpstream
) -> None:
    fake.script("readyz", Reply(body=b"ready\n"))
    fake.script("-/status", Reply(hang=True))
    asked = prober(fake.name, seconds=0.3)
    for _ in range(2):
        answer = asked.ask()
        assert (answer.error, answer.silent, answer.in_flight) == ("", False, None)
    # Not in every probe.
    assert fake.counts == {"readyz": 2, "-/status": 1}


def test_who_takes_no_new_connections_is_found_out(
    prober: MakeProber, raw: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a firewall that lets through what is established."""
    opened = []

    def serve(connection: socket.socket) -> None:
        opened.append(connection)
        while len(opened) == 1:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            if not connection.recv(4096):
                return

    asked = prober(raw(serve))
    for _ in range(3):
        assert asked.ask().error == ""
    assert len(opened) == 1
    monkeypatch.setattr(probe, "_CONNECTION_SECONDS", 0.0)
    assert asked.ask().error == "closed the connection without an answer"


def test_who_is_not_ready_still_says_how_busy_it_is(prober: MakeProber, fake: FakeUpstream) -> None:
    fake.script("readyz", Reply(status=503, body=b"draining\x1b[2J\nmore\n"))
    fake.script("-/status", Reply(body=STATUS))
    answer = prober(fake.name).ask()
    # What it says goes to terminals.
    assert (answer.error, answer.in_flight) == ("503 draining[2J", 2)


def test_a_long_answer_is_cut_and_not_waited_for(prober: MakeProber, fake: FakeUpstream) -> None:
    fake.script("readyz", Reply(status=500, body=b"x" * 5_000_000))
    answer = prober(fake.name).ask()
    assert answer.error == f"500 {'x' * 120}"


def test_an_answer_that_does_not_come(prober: MakeProber, fake: FakeUpstream) -> None:
    fake.script("readyz", Reply(hang=True))
    begun = time.monotonic()
    answer = prober(fake.name, seconds=0.3).ask()
    assert answer.error == "no answer within 0.3 s"
    assert (answer.silent, answer.refused) == (True, False)
    assert time.monotonic() - begun < 1.5


def test_nobody_listens(prober: MakeProber, refused_url: str) -> None:
    answer = prober(refused_url.removeprefix("http://")).ask()
    assert answer.error == "connection refused"
    assert (answer.silent, answer.refused) == (True, True)
    assert answer.in_flight is None
    assert answer.in_flight_at > 0


def test_a_name_that_is_none(prober: MakeProber) -> None:
    assert prober("nowhere.invalid:80").ask().error == "its address cannot be resolved"


class Names:
    """A DNS with one name in it, ``backend.example``; without an address it fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address = ""
        self.asked = 0
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, *more: Any, **options: Any) -> object:
        if host != "backend.example":
            return self._real(host, *more, **options)
        self.asked += 1
        if not self.address:
            raise socket.gaierror
        return self._real(self.address, *more, **options)


def test_a_backend_found_once_is_found_without_the_dns(
    monkeypatch: pytest.MonkeyPatch, prober: MakeProber, fake: FakeUpstream
) -> None:
    fake.script("readyz", Reply())
    names = Names(monkeypatch)
    asked = prober(f"backend.example:{fake.name.rpartition(':')[2]}")
    answer = asked.ask()
    assert (answer.error, answer.address) == ("its address cannot be resolved", "")
    names.address = "127.0.0.1"
    answer = asked.ask()
    assert (answer.error, answer.address) == ("", "127.0.0.1")
    names.address, names.asked = "", 0
    asked.close()
    assert asked.ask() == replace(answer, in_flight_at=asked.ask().in_flight_at)
    assert names.asked == 0


def test_a_backend_that_moved_is_looked_up_again(
    monkeypatch: pytest.MonkeyPatch, prober: MakeProber, raw: Serve
) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    port = int(raw(answer).rpartition(":")[2])
    names = Names(monkeypatch)
    asked = prober(f"backend.example:{port}", address="127.0.0.9")
    # Nobody is there, and nobody knows better.
    assert asked.ask().error == "connection refused"
    asked.lead_to(["127.0.0.1"])
    told = asked.ask()
    assert (told.error, told.address, names.asked) == ("", "127.0.0.1", 0)


def test_a_backend_that_moved_is_asked_there_while_another_answers_in_its_old_place(
    prober: MakeProber, fake: FakeUpstream
) -> None:
    fake.script("readyz", Reply())
    port = int(fake.name.rpartition(":")[2])
    with socket.create_server(("127.0.0.2", port)) as old:
        asked = prober(f"backend.example:{port}", address="127.0.0.2", seconds=0.2)
        assert asked.ask().error == "no answer within 0.2 s"
        # Both are its addresses: it stays where it is.
        asked.lead_to(["127.0.0.1", "127.0.0.2"])
        assert asked.ask().address == "127.0.0.2"
        asked.lead_to(["127.0.0.1"])
        told = asked.ask()
        assert (told.error, told.address) == ("", "127.0.0.1")
        old.shutdown(socket.SHUT_RDWR)


def ready(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@contextlib.contextmanager
def black_hole(address: str, port: int) -> Iterator[None]:
    """Have nobody answer there who would connect: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                waiting.connect((address, port))
        time.sleep(0.1)
        yield


def test_an_address_where_somebody_else_answers_is_not_its_own(
    prober: MakeProber, fake: FakeUpstream
) -> None:
    fake.script("readyz", Reply(status=404, body=b"not here"))
    port = int(fake.name.rpartition(":")[2])
    asked = prober(f"backend.example:{port}", address="127.0.0.2")
    with socket.create_server(("127.0.0.2", port)) as there:
        serve_forever(there, ready)
        assert asked.ask().error == ""
        asked.lead_to(["127.0.0.1"])
        for _ in range(3):
            answer = asked.ask()
            assert (answer.error, answer.address) == ("", "127.0.0.2")
        there.shutdown(socket.SHUT_RDWR)
    fake.script("readyz", Reply())
    assert asked.ask().address == "127.0.0.1"


def test_where_nobody_was_ready_yet_is_no_address(prober: MakeProber, fake: FakeUpstream) -> None:
    fake.script("readyz", Reply(status=503, body=b"starting"))
    asked = prober(f"localhost:{fake.name.rpartition(':')[2]}")
    asked.lead_to(["127.0.0.1"])
    answer = asked.ask()
    assert (answer.error, answer.address) == ("503 starting", "")
    fake.script("readyz", Reply())
    assert asked.ask().address == "127.0.0.1"


def test_an_address_that_swallows_everything_takes_no_time_from_the_others(
    prober: MakeProber, raw: Serve
) -> None:
    port = int(raw(ready).rpartition(":")[2])
    with black_hole("127.0.0.2", port):
        asked = prober(f"backend.example:{port}", address="127.0.0.1", seconds=0.8)
        asked.lead_to(["127.0.0.2"])
        for _ in range(2):
            begun = time.monotonic()
            answer = asked.ask()
            assert (answer.error, answer.address) == ("", "127.0.0.1")
            assert time.monotonic() - begun < 1
        # Both are its addresses, and the one it had is the one that swallows.
        asked = prober(f"backend.example:{port}", address="127.0.0.2", seconds=0.8)
        asked.lead_to(["127.0.0.1", "127.0.0.2"])
        answer = asked.ask()
        assert (answer.error, answer.address) == ("", "127.0.0.1")


def test_an_idle_connection_that_it_closed_says_nothing_about_it(
    prober: MakeProber,
    raw: Serve,
) -> None:
    def once(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    asked = prober(raw(once))
    for _ in range(3):
        assert asked.ask().error == ""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "failed: BadStatusLine"),
    ],
)
def test_what_is_no_answer(prober: MakeProber, raw: Serve, answer: bytes, error: str) -> None:
    assert prober(raw(lambda connection: connection.sendall(answer))).ask().error == error


def test_certificates_that_are_not_there_are_named(
    prober: MakeProber, fake: FakeUpstream, tmp_path: Path
) -> None:
    missing = tmp_path / "ca.crt"
    tls = TLS(ca_file=missing, certificate_file=missing, key_file=missing, name="b")
    assert prober(fake.name, tls=tls).ask().error.startswith("no such file or directory")
