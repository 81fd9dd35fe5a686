"""One upstream and the chain, against real sockets with every fault a mirror has."""

from __future__ import annotations

import io
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import FakeUpstream, Reply

from modhaven.board import Board
from modhaven.breaker import Breaker
from modhaven.chain import Chain, ChainError
from modhaven.chain_spec import parse_chain
from modhaven.config import BreakerConfig, Timeouts
from modhaven.upstream import AttemptError, Deadline, Turn, Upstream, make_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modhaven.transport import Session

TIMEOUTS = Timeouts(connect_seconds=0.5, first_byte_seconds=0.5, total_seconds=3)


@pytest.fixture
def session() -> Iterator[Session]:
    with make_session(ca_file=Path("/nonexistent"), pool_size=4) as made:
        yield made


def make(session: Session, chain: str, *, retries: int = 2) -> list[Upstream]:
    return [
        Upstream(
            spec,
            session=session,
            timeouts=TIMEOUTS,
            retries=retries,
            breaker=BreakerConfig(failures=3, open_seconds=0.2),
        )
        for spec in parse_chain(chain)
    ]


def fetch(
    upstream: Upstream | Turn, path: str = "x", limit: int = 1000, seconds: float = 5
) -> bytes:
    sink = io.BytesIO()
    upstream.fetch(path, sink, limit=limit, deadline=Deadline.after(seconds))
    return sink.getvalue()


def test_the_path_is_sent_escaped(session: Session, fake: FakeUpstream) -> None:
    (upstream,) = make(session, fake.url)
    fake.script("github.com/!a/x/@v/v1.0.0+incompatible.zip", Reply(body=b"zip"))
    assert fetch(upstream, "github.com/!a/x/@v/v1.0.0+incompatible.zip") == b"zip"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_trouble_is_tried_again(session: Session, fake: FakeUpstream, status: int) -> None:
    (upstream,) = make(session, fake.url)
    fake.script("x", Reply(status=status, body=b"oops"), Reply(body=b"fine"))
    assert fetch(upstream) == b"fine"


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked"}])
def test_a_truncated_body_is_seen_and_tried_again(
    session: Session, fake: FakeUpstream, headers: dict[str, str]
) -> None:
    (upstream,) = make(session, fake.url)
    fake.script("x", Reply(body=b"a" * 100, headers=headers, cut=20), Reply(body=b"fine"))
    assert fetch(upstream) == b"fine"
    fake.script("y", Reply(body=b"a" * 100, headers=headers, cut=20))
    with pytest.raises(AttemptError, match="truncated"):
        fetch(upstream, "y")
    assert fake.counts["y"] == 3


@pytest.mark.parametrize("status", [404, 410])
def test_not_found_is_final(session: Session, fake: FakeUpstream, status: int) -> None:
    (upstream,) = make(session, fake.url)
    fake.script("x", Reply(status=status))
    with pytest.raises(AttemptError) as caught:
        fetch(upstream)
    assert caught.value.not_found
    assert fake.counts["x"] == 1


def test_a_short_retry_after_is_obeyed_a_long_one_is_a_failure(
    session: Session, fake: FakeUpstream
) -> None:
    (upstream,) = make(session, fake.url)
    fake.script("x", Reply(status=429, headers={"Retry-After": "1"}), Reply(body=b"fine"))
    start = time.monotonic()
    assert fetch(upstream) == b"fine"
    assert time.monotonic() - start >= 1
    fake.script("y", Reply(status=429, headers={"Retry-After": "600"}))
    with pytest.raises(AttemptError, match="429"):
        fetch(upstream, "y")


def test_a_black_hole_costs_one_timeout(session: Session, fake: FakeUpstream) -> None:
    (upstream,) = make(session, fake.url)
    fake.script("x", Reply(hang=True))
    start = time.monotonic()
    with pytest.raises(AttemptError) as caught:
        fetch(upstream)
    assert caught.value.timed_out
    assert 0.4 < time.monotonic() - start < 1.5


def test_a_body_that_trickles_ends_at_the_deadline(session: Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (upstream,) = make(session, f"http://127.0.0.1:{server.getsockname()[1]}")

        def trickle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(100):
                    time.sleep(0.1)
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        start = time.monotonic()
        with pytest.raises(AttemptError, match="timed out after"):
            fetch(upstream, seconds=1)
        assert time.monotonic() - start < 2
        thread.join()


def test_too_large_a_body_is_refused(session: Session, fake: FakeUpstream) -> None:
    (upstream,) = make(session, fake.url)
    fake.script("x", Reply(body=b"a" * 1001))
    with pytest.raises(AttemptError, match="larger than 1000"):
        fetch(upstream)


def test_a_refused_connection_is_no_timeout(session: Session, refused_url: str) -> None:
    (upstream,) = make(session, refused_url, retries=0)
    with pytest.raises(AttemptError, match=r"^connection refused$") as caught:
        fetch(upstream)
    assert not caught.value.timed_out


def test_redirects_in_a_circle_end(session: Session, fake: FakeUpstream) -> None:
    (upstream,) = make(session, fake.url, retries=0)
    fake.script("x", Reply(status=302, headers={"Location": "/x"}))
    with pytest.raises(AttemptError, match="redirected too often"):
        fetch(upstream)
    assert fake.counts["x"] == 11


def test_redirects_are_followed(session: Session, fake: FakeUpstream, fake2: FakeUpstream) -> None:
    (upstream,) = make(session, fake.url)
    fake.script("x", Reply(status=302, headers={"Location": f"{fake2.url}/y"}))
    fake2.script("y", Reply(body=b"moved"))
    assert fetch(upstream) == b"moved"


def walk(chain: Chain) -> tuple[bytes, str]:
    return chain.walk(fetch)


@pytest.mark.parametrize(
    ("separator", "status"), [("|", 500), ("|", 403), ("|", 404), (",", 404), (",", 410)]
)
def test_what_falls_through(
    session: Session, fake: FakeUpstream, fake2: FakeUpstream, separator: str, status: int
) -> None:
    chain = Chain(make(session, f"{fake.url}{separator}{fake2.url}", retries=0))
    fake.script("x", Reply(status=status))
    fake2.script("x", Reply(body=b"second"))
    assert walk(chain) == (b"second", fake2.name)


@pytest.mark.parametrize("status", [500, 403])
def test_what_stops_at_a_comma(
    session: Session, fake: FakeUpstream, fake2: FakeUpstream, status: int
) -> None:
    chain = Chain(make(session, f"{fake.url},{fake2.url}", retries=0))
    fake.script("x", Reply(status=status))
    with pytest.raises(ChainError) as caught:
        walk(chain)
    assert not caught.value.not_found
    assert fake2.counts["x"] == 0


def test_a_failure_outranks_not_found(
    session: Session, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    chain = Chain(make(session, f"{fake.url}|{fake2.url}", retries=0))
    with pytest.raises(ChainError) as caught:
        walk(chain)
    assert caught.value.not_found
    fake.script("x", Reply(status=500))
    with pytest.raises(ChainError) as caught:
        walk(chain)
    assert not caught.value.not_found
    assert [attempt.outcome for attempt in caught.value.attempts] == ["500", "404"]


def test_off_ends_the_chain(session: Session, fake: FakeUpstream) -> None:
    with pytest.raises(ChainError) as caught:
        walk(Chain(make(session, "off")))
    assert caught.value.off
    with pytest.raises(ChainError) as caught:
        walk(Chain(make(session, f"{fake.url},off")))
    assert caught.value.not_found
    assert not caught.value.off


def test_after_one_timeout_a_black_hole_is_skipped_at_once(
    session: Session, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.default = Reply(hang=True)
    fake2.script("x", Reply(body=b"second"))
    chain = Chain(make(session, f"{fake.url}|{fake2.url}"))
    assert walk(chain)[0] == b"second"
    start = time.monotonic()
    for _ in range(5):
        assert walk(chain)[0] == b"second"
    assert time.monotonic() - start < 0.4
    assert fake.counts["x"] == 1


def test_a_probe_brings_an_upstream_back(
    session: Session, refused_url: str, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.script("x", Reply(status=500))
    fake2.script("x", Reply(body=b"second"))
    chain = Chain(make(session, f"{fake.url}|{fake2.url}|{refused_url}", retries=0))
    for _ in range(4):
        assert walk(chain) == (b"second", fake2.name)
    assert fake.counts["x"] == 3
    fake.script("x", Reply(body=b"first"))
    end = time.monotonic() + 5
    while walk(chain) != (b"first", fake.name):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_when_all_are_open_they_are_tried_anyway(session: Session, fake: FakeUpstream) -> None:
    upstreams = make(session, fake.url, retries=0)
    chain = Chain(upstreams)
    fake.default = Reply(status=500)
    for _ in range(3):
        with pytest.raises(ChainError):
            walk(chain)
    assert upstreams[0].breaker.is_open
    fake.script("x", Reply(body=b"back"))
    assert walk(chain) == (b"back", fake.name)


def test_what_is_behind_an_open_upstream_and_a_comma_stays_hidden(
    session: Session, fake: FakeUpstream, fake2: FakeUpstream, refused_url: str
) -> None:
    upstreams = make(session, f"{fake.url}|{refused_url},{fake2.url}", retries=0)
    upstreams[1].breaker.failed(timed_out=True)
    with pytest.raises(ChainError) as caught:
        walk(Chain(upstreams))
    assert not caught.value.not_found
    assert fake2.counts["x"] == 0


def test_not_found_by_all_that_could_be_asked_is_not_found(
    session: Session, fake: FakeUpstream, refused_url: str
) -> None:
    upstreams = make(session, f"{fake.url}|{refused_url}", retries=0)
    upstreams[1].breaker.failed(timed_out=True)
    with pytest.raises(ChainError) as caught:
        walk(Chain(upstreams))
    assert caught.value.not_found


def test_breaker_counts_failures_in_a_row() -> None:
    breaker = Breaker(failures=3, open_seconds=60)
    for _ in range(5):
        breaker.failed(timed_out=False)
        breaker.failed(timed_out=False)
        breaker.succeeded()
    assert not breaker.is_open


def test_breaker_opens_and_is_not_probed_at_once() -> None:
    breaker = Breaker(failures=3, open_seconds=60)
    for _ in range(3):
        breaker.failed(timed_out=False)
    assert breaker.is_open
    assert not breaker.claim_probe()


def test_workers_hear_of_each_others_timeouts() -> None:
    board = Board()
    mine, other = (
        Breaker(failures=3, open_seconds=60, place=board.place("https://a.b")) for _ in range(2)
    )
    mine.failed(timed_out=False)
    assert other.lets_through()
    mine.failed(timed_out=True)
    assert not other.lets_through()
    assert other.claim_probe()
    other.found_well()
    assert other.lets_through()
    assert not mine.lets_through()
