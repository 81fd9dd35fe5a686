"""What an edge allows its clients, with real nginx: what builds need, and no more."""

from __future__ import annotations

import collections
import http.client
import os
import re
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.conftest import free_port
from tests.integration.edge_site import EdgeSite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.edge_site import Edge

pytestmark = pytest.mark.integration
MODULES = 500
# .info, .mod, .zip and the checksum database's lookup; and some tiles.
REQUESTS_EACH = 4
CONNECTIONS = 50
FIRST, SECOND = "127.0.0.1", "127.0.0.2"
LIST = "/example.com/a/@v/list"
ZIP = "/example.com/a/@v/v1.0.0.zip"
PROXY_PORT = free_port()
HEADER_SECONDS, SEND_SECONDS = 2, 2


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, program: Path) -> EdgeSite:
    """Four edges: as by default, with small bounds, and behind balancers of both kinds."""
    small = {
        "edge_limit_requests_per_second": 5, "edge_limit_burst": 20, "edge_limit_connections": 3,
        "nginx_client_header_timeout_seconds": HEADER_SECONDS,
        "nginx_send_timeout_seconds": SEND_SECONDS,
    }  # fmt: skip
    off = {"edge_limit_requests_per_second": 0, "edge_limit_connections": 0}
    trusting = {"edge_trusted_proxies": ["127.0.0.2", "127.0.1.0/24"]}
    return EdgeSite(
        tmp_path_factory.mktemp("clients") / "site", program, "usual", "small", "behind", "proxied",
        hosts={
            "small": small,
            "behind": {**small, **trusting},
            "proxied": {**off, **trusting, "edge_proxy_protocol_port": PROXY_PORT},
        },
        edge_sibling_tries=0,
    )  # fmt: skip


@pytest.fixture
def site(rendered: EdgeSite) -> Iterator[EdgeSite]:
    with rendered as running:
        running.publish(LIST, b"v1.0.0\n", "public, max-age=600")
        yield running


def statuses(port: int, source: str, paths: list[str], **headers: str) -> list[int]:
    """Ask for everything on one connection without waiting for answers; return their statuses."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    sent = "".join(f"GET {path} HTTP/1.1\r\nHost: edge\r\n{more}\r\n" for path in paths[:-1])
    last = f"GET {paths[-1]} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n{more}\r\n"
    with socket.create_connection((FIRST, port), 30, source_address=(source, 0)) as made:
        writer = threading.Thread(target=made.sendall, args=((sent + last).encode(),))
        writer.start()
        answers = b"".join(iter(lambda: made.recv(1 << 16), b""))
        writer.join()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def build(edge: Edge, source: str) -> list[int]:
    """Send what a cold build of many modules sends, as fast as this machine can; the statuses."""
    kinds = ("v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip", "list")
    paths = [f"/example.com/m{number}/@v/{kind}" for number in range(MODULES) for kind in kinds]
    assert len(paths) == MODULES * REQUESTS_EACH
    found: list[list[int]] = []
    threads = [
        threading.Thread(
            target=lambda part: found.append(statuses(edge.port, source, part)),
            args=(paths[first::CONNECTIONS],),
        )
        for first in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [status for part in found for status in part]


def test_a_cold_build_of_500_modules_meets_no_limit_and_a_flood_does(
    site: EdgeSite, say: Callable[[str], None]
) -> None:
    edge = site.edges["usual"]
    for backend in site.backends.values():
        backend.default.headers["Cache-Control"] = "public, max-age=600"
    began = time.monotonic()
    answers = build(edge, FIRST)
    seconds = time.monotonic() - began
    assert answers == [404] * (MODULES * REQUESTS_EACH)
    # The same again, now from the cache: faster than any build can be.
    began = time.monotonic()
    assert build(edge, FIRST) == [404] * (MODULES * REQUESTS_EACH)
    say(
        f"{MODULES * REQUESTS_EACH} requests of one address: cold in {seconds:.1f} s, "
        f"from the cache in {time.monotonic() - began:.1f} s, none refused"
    )
    flood: list[int] = []
    while 429 not in flood and len(flood) < 200_000:
        flood += statuses(edge.port, FIRST, [LIST] * 900)
    assert 429 in flood
    # Another client is served meanwhile, and has its whole allowance.
    assert statuses(edge.port, SECOND, [LIST] * 500) == [200] * 500


def test_who_asks_too_much_is_told_to_wait_and_others_are_not(site: EdgeSite) -> None:
    edge = site.edges["small"]
    answers = statuses(edge.port, FIRST, [LIST] * 60)
    assert set(answers) == {200, 429}
    assert 21 <= answers.count(200) < 40
    refused = edge.get(LIST)
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["Cache-Control"] == "no-store"
    assert refused.headers["Content-Type"] == "text/plain"
    assert refused.text == (
        "too many requests from your address, ask again in a second; request id: "
        f"{refused.headers['X-Request-Id']}\n"
    )
    logged = edge.log(wanted=61)
    assert (logged[-1]["status"], logged[-1]["client"]) == (429, FIRST)
    assert logged[-1]["request_id"] == refused.headers["X-Request-Id"]
    assert edge.errors() == []
    # What is asked about the edge itself is never refused.
    for path in ("/healthz", "/readyz"):
        assert 429 not in statuses(edge.port, FIRST, [path] * 60)
    assert statuses(edge.port, SECOND, [LIST] * 15) == [200] * 15


def test_limits_can_be_switched_off(site: EdgeSite) -> None:
    text = (site.folder / "proxied/nginx/modhaven/edge/limits.conf").read_text()
    text += (site.folder / "proxied/nginx/modhaven/edge/snippets/limits.conf").read_text()
    assert "limit_req" not in re.sub(r"(?m)#.*$", "", text)
    assert statuses(site.edges["proxied"].port, FIRST, [LIST] * 300) == [200] * 300


def test_one_address_holds_so_many_requests_at_once(site: EdgeSite) -> None:
    edge = site.edges["small"]
    site.publish(ZIP, os.urandom(30 << 20))
    assert edge.get(ZIP).ok
    held = [socket.create_connection((FIRST, edge.port), 10) for _ in range(3)]
    try:
        for one in held:
            one.sendall(f"GET {ZIP} HTTP/1.1\r\nHost: edge\r\n\r\n".encode())
            assert one.recv(15) == b"HTTP/1.1 200 OK"
        assert statuses(edge.port, FIRST, [LIST]) == [429]
        assert statuses(edge.port, SECOND, [LIST]) == [200]
    finally:
        for one in held:
            one.close()


def test_a_balancer_that_is_trusted_says_who_the_client_is(site: EdgeSite) -> None:
    edge = site.edges["behind"]
    # The client wrote the first one itself, the balancers the others.
    chain = "203.0.113.9, 198.51.100.7, 127.0.1.5"
    assert statuses(edge.port, SECOND, [LIST], X_Forwarded_For=chain) == [200]
    # Nobody believes others; what they write there changes neither log nor limit.
    assert statuses(edge.port, FIRST, [LIST], X_Forwarded_For="198.51.100.8") == [200]
    assert [line["client"] for line in edge.log(wanted=2)] == ["198.51.100.7", FIRST]
    forged = [
        status
        for number in range(60)
        for status in statuses(edge.port, FIRST, [LIST], X_Forwarded_For=f"198.51.100.{number}")
    ]
    assert 429 in forged
    real = [
        status
        for number in range(60)
        for status in statuses(edge.port, SECOND, [LIST], X_Forwarded_For=f"198.51.101.{number}")
    ]
    assert set(real) == {200}


def test_backends_hear_of_the_real_client_alone(site: EdgeSite) -> None:
    def told(edge: str, source: str, **headers: str) -> str:
        path = f"/example.com/{edge}{len(seen())}/@v/list"
        statuses(site.edges[edge].port, source, [path], **headers)
        return seen()[path.lstrip("/")]["X-Forwarded-For"]

    def seen() -> dict[str, dict[str, str]]:
        return {path: held for one in site.backends.values() for path, held in one.headers}

    assert told("usual", FIRST, X_Forwarded_For="203.0.113.9") == FIRST
    assert told("behind", SECOND, X_Forwarded_For="203.0.113.9, 198.51.100.7") == "198.51.100.7"


def proxied(site: EdgeSite, source: str, client: str) -> int:
    """Ask through a balancer that speaks the PROXY protocol, over TLS; return the status."""
    context = ssl.create_default_context(cafile=str(site.pki / "ca.crt"))
    with socket.create_connection((FIRST, PROXY_PORT), 10, source_address=(source, 0)) as made:
        made.sendall(f"PROXY TCP4 {client} 192.0.2.1 40000 443\r\n".encode())
        with context.wrap_socket(made, server_hostname="localhost") as secure:
            secure.sendall(f"GET {LIST} HTTP/1.0\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n".encode())
            return int(secure.recv(100).split()[1])


def test_what_else_a_client_sends_is_for_no_backend(site: EdgeSite) -> None:
    site.publish(LIST, b"v1.0.0\n")
    edge = site.edges["usual"]
    # A long token, as of a .netrc; more than the app takes.
    told = {"Authorization": f"Bearer {'a' * 9000}", "Cookie": "a=b"}
    answer = edge.get(LIST, headers=told)
    assert (answer.status_code, answer.headers["X-Modhaven-Cache"]) == (200, "MISS")
    (heard,) = (names for backend in site.backends.values() for _, names in backend.headers)
    assert set(heard) == {"Host", "X-Request-Id", "X-Forwarded-For"}


@pytest.mark.parametrize("prefix", ["", "/cached-only"])
def test_that_a_database_is_served_needs_no_backend(site: EdgeSite, prefix: str) -> None:
    site.stop_backends()
    answer = site.edges["usual"].get(f"{prefix}/sumdb/sum.golang.org/supported")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_proxy_protocol_has_a_port_of_its_own_and_is_believed_from_balancers(
    site: EdgeSite,
) -> None:
    edge = site.edges["proxied"]
    assert proxied(site, SECOND, "198.51.100.7") == 200
    assert proxied(site, FIRST, "198.51.100.8") == 200
    # Clients, keepalived and `site.yml` go on using the ports they had.
    assert statuses(edge.port, FIRST, [LIST]) == [200]
    assert [line["client"] for line in edge.log(wanted=3)] == ["198.51.100.7", FIRST, FIRST]


def cut_after(made: socket.socket, octets: bytes, pause: float) -> float | None:
    """Send octet after octet until nginx closes the connection; None when it did not."""
    began = time.monotonic()
    made.settimeout(pause)
    for octet in octets:
        try:
            made.sendall(bytes([octet]))
            if made.recv(1000) == b"":
                return time.monotonic() - began
        except TimeoutError:
            continue
        except ConnectionError:
            return time.monotonic() - began
    return None


@pytest.mark.parametrize("tls", [False, True])
def test_who_sends_headers_one_octet_at_a_time_is_cut(site: EdgeSite, *, tls: bool) -> None:
    edge = site.edges["small"]
    port = edge.tls_port if tls else edge.port
    # A TLS handshake that does not end is no better.
    text = b"\x16\x03\x01\x02\x00" + bytes(500) if tls else b"GET / HTTP/1.1\r\nX: " + b"a" * 500
    with socket.create_connection((FIRST, port), 10) as made:
        seconds = cut_after(made, text, pause=0.05)
    assert seconds is not None
    assert HEADER_SECONDS - 0.5 <= seconds < 3 * HEADER_SECONDS


def test_a_request_with_a_body_is_refused_before_the_body_has_come(site: EdgeSite) -> None:
    with socket.create_connection((FIRST, site.edges["small"].port), 10) as made:
        made.sendall(f"GET {ZIP} HTTP/1.1\r\nHost: edge\r\nContent-Length: 900\r\n\r\na".encode())
        assert made.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_who_takes_nothing_is_cut_and_who_takes_little_is_not(site: EdgeSite) -> None:
    edge = site.edges["small"]
    body = os.urandom(24 << 20)
    site.publish(ZIP, body)
    assert edge.get(ZIP).content == body
    slow = http.client.HTTPConnection(FIRST, edge.port, timeout=20)
    slow.request("GET", ZIP)
    answer = slow.getresponse()
    began = time.monotonic()
    taken = [answer.read(1 << 20)]
    with socket.create_connection((FIRST, edge.port), 20) as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.sendall(f"GET {ZIP} HTTP/1.1\r\nHost: edge\r\n\r\n".encode())
        # Meanwhile the other one takes a megabyte now and then, for much longer than the bound.
        while len(taken) < 24:
            time.sleep(SEND_SECONDS / 8)
            taken.append(answer.read(1 << 20))
        with pytest.raises(ConnectionResetError):
            collections.deque(iter(lambda: idle.recv(1 << 20), b""), maxlen=0)
    slow.close()
    assert b"".join(taken) == body
    assert time.monotonic() - began > 2 * SEND_SECONDS
