"""How an edge names each request, and what it writes down of it, with real nginx."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
import requests
from tests.integration.edge_site import YEAR, EdgeSite

from modhaven import wsgi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.edge_site import Edge

pytestmark = pytest.mark.integration
NAME, SHORT_NAME = "edge-1.the-office-in-zurich.example", "edge-1.the-office-i-"
MOD = "/example.com/a/@v/v1.0.0.mod"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[EdgeSite]:
    folder = tmp_path_factory.mktemp("log") / "site"
    with EdgeSite(folder, program, NAME, edge_sibling_tries=0, edge_http2=True) as running:
        running.publish(MOD, b"module example.com/a\n", YEAR)
        yield running


@pytest.fixture
def edge(site: EdgeSite) -> Edge:
    return site.edges[NAME]


def test_a_request_has_a_name_of_its_own_that_says_which_edge_it_met(edge: Edge) -> None:
    with requests.Session() as kept:
        names = [kept.get(edge.url + MOD).headers["X-Request-Id"] for _ in range(5)]
    names += [edge.get(path).headers["X-Request-Id"] for path in (MOD, MOD, "/nothing", "/")]
    multiplexed = [f"https://127.0.0.1:{edge.tls_port}{MOD}"] * 50
    told = subprocess.run(
        ["curl", "--silent", "--insecure", "--http2", "--parallel", "--parallel-max", "50",
         "--write-out", "%{http_version} %{http_code} %header{x-request-id}\n",
         *(word for url in multiplexed for word in ("--output", "/dev/null", url))],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout.split("\n")[:-1]  # fmt: skip
    assert {line.rpartition(" ")[0] for line in told} == {"2 200"}
    streams = [line.rpartition(" ")[2] for line in told]
    assert len({name.split("-")[-2] for name in streams}) < len(streams), "each had a connection"
    names += streams
    assert len(set(names)) == len(names) == 59
    for name in names:
        assert name.startswith(SHORT_NAME)
        assert wsgi.REQUEST_ID.fullmatch(name), f"the app would not take {name} over"
    logged = [line["request_id"] for line in edge.log(wanted=59)]
    assert sorted(logged) == sorted(names)


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        (MOD, MOD),
        (b"/example.com/\xc3\xa4/@v/v1.0.0.mod", "(not ASCII)"),
        (b"/\xff/@v/list", "(not ASCII)"),
        ("/example.com/%C3%A4/@v/v1.0.0.zip", "(not ASCII)"),
        ("/sumdb/sum.golang.org/lookup/%FF@v1.0.0", "(not ASCII)"),
        ("/example.com/a/@v/%FF.info", "(not ASCII)"),
        ("/%FF/@latest", "(not ASCII)"),
        ("/sumdb/%FF/latest", "(not ASCII)"),
        ("/sumdb/%FF/tile/8/0/000", "(not ASCII)"),
        ("/sumdb/%FF/tile/8/0/001.p/12", "(not ASCII)"),
        ("/-/%FF", "(not ASCII)"),
        ("/%22%5C/@v/list", '/"\\/@v/list'),
        ("/example.com/a/@v/list%0A", "/example.com/a/@v/list\n"),
    ],
)
def test_the_log_is_json_whatever_is_asked(edge: Edge, path: str | bytes, logged: str) -> None:
    before = len(edge.log())
    asked = path if isinstance(path, bytes) else path.encode()
    with socket.create_connection(("127.0.0.1", edge.port), 30) as made:
        made.sendall(b"GET %b HTTP/1.0\r\nHost: edge\r\nUser-Agent: a \xff\r\n\r\n" % asked)
        assert made.recv(9) == b"HTTP/1.1 "
    line = edge.log(wanted=before + 1)[before]
    assert (line["path"], line["user_agent"]) == (logged, "(not ASCII)")


@pytest.mark.parametrize("agent", ["", "Go-http-client/1.1", "Go-http-client/2.0", 'my "go"/1.27'])
def test_the_log_says_which_program_asks(edge: Edge, agent: str) -> None:
    before = len(edge.log())
    edge.get(MOD, headers={"User-Agent": agent})
    assert edge.log(wanted=before + 1)[before]["user_agent"] == agent
