"""Sibling caches with real nginx: what another edge holds is served when no backend has it."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests
from tests.bench.loopback import Site, Tools, scratch
from tests.conftest import Reply
from tests.integration.edge_site import YEAR, EdgeSite, answer_once_and_close_under_the_next

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import FakeUpstream

pytestmark = pytest.mark.integration
MOD = "/example.com/a/@v/v1.0.0.mod"
ZIP = "/example.com/a/@v/v1.0.0.zip"
LIST = "/example.com/a/@v/list"
MINUTE = "public, max-age=60, stale-while-revalidate=60"
# What backends answer when they have failed, and in which words.
FAILURES = (502, 503, 504)
SAID = "no upstream had it\ngoproxy.cn: 500, 12 ms\ngoproxy.io: reset, 3 ms\nrequest id: of-edge1\n"


@pytest.fixture(scope="module")
def three_edges(tmp_path_factory: pytest.TempPathFactory, program: Path) -> EdgeSite:
    return EdgeSite(tmp_path_factory.mktemp("three") / "site", program, "edge1", "edge2", "edge3")


@pytest.fixture
def site(three_edges: EdgeSite) -> Iterator[EdgeSite]:
    with three_edges as running:
        yield running


def warm(site: EdgeSite, edge: str, path: str, body: bytes, control: str, **marks: str) -> None:
    """Put an answer into one edge's cache, the way it gets there."""
    site.publish(path, body, control, **marks)
    assert site.edges[edge].get(path).content == body


def test_what_a_sibling_holds_is_served_when_no_backend_answers(site: EdgeSite) -> None:
    one, two = site.edges["edge1"], site.edges["edge2"]
    big = os.urandom(40 << 20)
    warm(site, "edge2", MOD, b"module example.com/a\n", YEAR)
    warm(site, "edge2", ZIP, big, YEAR)
    warm(site, "edge2", "/example.com/!azure/@v/v1.0.0.mod", b"module A\n", "max-age=31536000")
    site.stop_backends()

    answer = one.get(MOD)
    assert (answer.status_code, answer.content) == (200, b"module example.com/a\n")
    assert answer.headers["X-Modhaven-Cache"] == "SIBLING"
    assert answer.headers["X-Modhaven-Sibling"] == "edge2"
    assert answer.headers["X-Modhaven-Source"] == "store"
    assert "X-Modhaven-Stale" not in answer.headers
    # One id for the client, this edge's log and the sibling's; not that of the first fetch.
    assert "," not in answer.headers["X-Request-Id"]
    logged = one.log(wanted=1)[-1]
    assert (logged["request_id"], logged["cache"], logged["sibling"]) == (
        answer.headers["X-Request-Id"], "SIBLING", "edge2",
    )  # fmt: skip
    asked = two.log("modhaven-sibling", 1)[-1]
    assert (asked["request_id"], asked["cache"]) == (answer.headers["X-Request-Id"], "HIT")

    head = one.ask("HEAD", ZIP)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(big)))
    assert head.content == b""
    answer = one.get(ZIP)
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(big).digest()
    assert one.get("/example.com/%21azure/@v/v1.0.0.mod").content == b"module A\n"
    # What a sibling gave is not kept.
    assert one.cached() == 0


def test_a_stale_answer_of_a_sibling_says_so(site: EdgeSite) -> None:
    warm(site, "edge2", LIST, b"v1.0.0\n", "public, max-age=1")
    warm(site, "edge3", "/example.com/a/@latest", b"{}", MINUTE, **{"X-Modhaven-Stale": "500"})
    site.stop_backends()
    deadline = time.monotonic() + 20
    while (answer := site.edges["edge1"].get(LIST)).headers.get("X-Modhaven-Stale") is None:
        assert time.monotonic() < deadline, "the list never became stale"
        time.sleep(0.1)
    assert (answer.status_code, answer.content) == (200, b"v1.0.0\n")
    assert answer.headers["X-Modhaven-Stale"] == "60"
    assert answer.headers["X-Modhaven-Cache"] == "SIBLING"
    # A backend's own word on how old it is stays.
    answer = site.edges["edge1"].get("/example.com/a/@latest")
    assert (answer.headers["X-Modhaven-Stale"], answer.headers["X-Modhaven-Sibling"]) == (
        "500", "edge3",
    )  # fmt: skip


def test_a_not_found_that_one_sibling_keeps_does_not_hide_what_another_has(site: EdgeSite) -> None:
    for backend in site.backends.values():
        backend.script(MOD[1:], Reply(404, b"no\n", headers={"Cache-Control": "max-age=60"}))
    assert site.edges["edge2"].get(MOD).status_code == 404
    warm(site, "edge3", MOD, b"module example.com/a\n", YEAR)
    site.stop_backends()
    # Whichever is asked first.
    for _ in range(4):
        answer = site.edges["edge1"].get(MOD)
        assert (answer.status_code, answer.headers["X-Modhaven-Sibling"]) == (200, "edge3")


def test_nobody_has_it_and_nobody_is_asked_twice(site: EdgeSite) -> None:
    site.stop_backends()
    began = time.monotonic()
    answer = site.edges["edge1"].get(MOD)
    seconds = time.monotonic() - began
    assert answer.status_code == 502
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.text.startswith(
        "no backend of edge1 answered this request, and neither its cache nor another edge has"
    )
    assert answer.headers["X-Request-Id"] in answer.text
    assert seconds < 3
    logs = [site.edges[name].log("modhaven-sibling", 1) for name in ("edge2", "edge3")]
    # Each of the two once, and neither asked the first one or each other.
    assert [[line["status"] for line in log] for log in logs] == [[403], [403]]
    assert site.edges["edge1"].log("modhaven-sibling") == []
    assert [site.edges[name].log(wanted=1) for name in ("edge2", "edge3")] == [[], []]
    # A miss of a sibling is no failure: it is asked the next time, too.
    for _ in range(5):
        site.edges["edge1"].get(MOD)
    assert len(site.edges["edge2"].log("modhaven-sibling", 6)) == 6
    assert site.edges["edge2"].errors() == []
    assert all(edge.cached() == 0 for edge in site.edges.values())


def fail(site: EdgeSite, path: str, status: int, **headers: str) -> None:
    """Let every backend answer ``path`` as one does that failed."""
    for name, backend in site.backends.items():
        given = {"Cache-Control": "no-store", "Content-Type": "text/plain; charset=utf-8",
                 "X-Modhaven-Backend": name, "X-Modhaven-Reason": SAID.replace("\n", "\t")[:-1],
                 "X-Content-Type-Options": "nosniff", **headers}  # fmt: skip
        backend.script(path.lstrip("/"), Reply(status, SAID.encode(), headers=given))


@pytest.mark.parametrize("status", FAILURES)
def test_what_a_sibling_holds_is_served_when_backends_answer_that_they_failed(
    site: EdgeSite, status: int
) -> None:
    one, two = site.edges["edge1"], site.edges["edge2"]
    lookup = "/sumdb/sum.golang.org/lookup/example.com/a@v1.0.0"
    held = {MOD: b"module example.com/a\n", ZIP: os.urandom(2 << 20), lookup: b"1\n"}
    for path, body in held.items():
        warm(site, "edge2", path, body, YEAR)
        fail(site, path, status, **{"Retry-After": "2"})
    for path, body in held.items():
        answer = one.get(path)
        assert (answer.status_code, answer.content) == (200, body)
        assert answer.headers["X-Modhaven-Cache"] == "SIBLING"
        assert answer.headers["X-Modhaven-Sibling"] == "edge2"
        assert answer.headers["Cache-Control"] == YEAR
        assert "Retry-After" not in answer.headers
        assert "X-Modhaven-Reason" not in answer.headers
    head = one.ask("HEAD", ZIP)
    assert (head.status_code, head.headers["X-Modhaven-Sibling"]) == (200, "edge2")
    assert head.headers["Content-Length"] == str(len(held[ZIP]))
    logged = one.log(wanted=4)[0]
    assert (logged["status"], logged["cache"], logged["sibling"]) == (200, "SIBLING", "edge2")
    # Both backends said 503 and a sibling answered; after 502 and 504 no other backend is asked.
    tried = f"{status}, {status}" if status == 503 else f"{status}"
    assert re.fullmatch(rf"{tried} : (403, )?200", logged["upstream_status"])
    assert len(two.log("modhaven-sibling", 4)) == 4
    # What a sibling gave is not kept.
    assert one.cached() == 0


@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("siblings", ["know nothing", "are dead"])
def test_what_no_sibling_has_is_answered_in_the_backends_own_words(
    site: EdgeSite, status: int, siblings: str
) -> None:
    one = site.edges["edge1"]
    if siblings == "are dead":
        site.edges["edge2"].stop()
        site.edges["edge3"].stop()
    for path in (MOD, LIST):
        fail(site, path, status, **({"Retry-After": "2"} if status == 503 else {}))
    for number, path in enumerate((MOD, LIST, MOD)):
        answer = one.get(path)
        assert (answer.status_code, answer.text) == (status, SAID)
        assert answer.headers["Content-Type"] == "text/plain"
        assert answer.headers.get("Retry-After") == ("2" if status == 503 else None)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Modhaven-Backend"] in site.backends
        assert answer.headers["X-Modhaven-Cache"] == "MISS"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert {"X-Modhaven-Reason", "X-Modhaven-Sibling"}.isdisjoint(answer.headers)
        logged = one.log(wanted=number + 1)[-1]
        assert logged["request_id"] == answer.headers["X-Request-Id"]
        assert (logged["status"], logged["sibling"]) == (status, "")
        assert logged["backend"] == answer.headers["X-Modhaven-Backend"]
        assert answer.elapsed.total_seconds() < 1
    head = one.ask("HEAD", MOD)
    assert (head.status_code, head.content) == (status, b"")
    assert head.headers.get("Retry-After") == ("2" if status == 503 else None)
    if siblings == "know nothing":
        logs = [site.edges[name].log("modhaven-sibling", 4) for name in ("edge2", "edge3")]
        assert [[line["status"] for line in log] for log in logs] == [[403] * 4] * 2
    assert site.edges["edge1"].log("modhaven-sibling") == []
    assert one.cached() == 0


def test_siblings_that_have_nothing_are_asked_over_the_same_connection(site: EdgeSite) -> None:
    fail(site, MOD, 502)
    before = site.edges["edge2"].accepted()
    # One connection is one worker.
    with requests.Session() as session:
        for _ in range(20):
            assert session.get(f"{site.edges['edge1'].url}{MOD}", timeout=30).status_code == 502
    assert len(site.edges["edge2"].log("modhaven-sibling", 20)) == 20
    assert site.edges["edge2"].accepted() - before == 2


@pytest.mark.parametrize("status", [403, 404, 410, 500])
def test_what_a_backend_says_for_certain_no_sibling_is_asked_about(
    site: EdgeSite, status: int
) -> None:
    warm(site, "edge2", MOD, b"module example.com/a\n", YEAR)
    fail(site, MOD, status)
    answer = site.edges["edge1"].get(MOD)
    assert (answer.status_code, answer.text) == (status, SAID)
    assert site.edges["edge2"].log("modhaven-sibling") == []


def test_a_backend_says_in_a_header_what_its_body_says(fake: FakeUpstream) -> None:
    fake.default = Reply(status=500)
    with scratch() as folder, Site(folder / "site", Tools.fetch(), fake.url, sumdbs=()) as backend:
        answers = [backend.get(MOD.lstrip("/"))]
        backend.stop_app()
        answers.append(backend.get(MOD.lstrip("/")))
    assert [answer.status_code for answer in answers] == [502, 503]
    for answer in answers:
        assert answer.headers["X-Modhaven-Reason"].split("\t") == answer.text.splitlines()


def test_a_stale_answer_of_the_own_cache_comes_before_siblings(site: EdgeSite) -> None:
    warm(site, "edge1", LIST, b"v1.0.0\n", "public, max-age=1")
    warm(site, "edge2", LIST, b"v1.0.0\nv1.1.0\n", MINUTE)
    for status in FAILURES:
        fail(site, LIST, status)
        deadline = time.monotonic() + 20
        while (answer := site.edges["edge1"].get(LIST)).headers["X-Modhaven-Cache"] == "HIT":
            assert time.monotonic() < deadline, "the list never became stale"
            time.sleep(0.1)
        assert (answer.status_code, answer.content) == (200, b"v1.0.0\n")
        assert answer.headers["X-Modhaven-Cache"] == "STALE"
    assert site.edges["edge2"].log("modhaven-sibling") == []


def test_a_cached_not_found_of_a_sibling_is_one(site: EdgeSite) -> None:
    for backend in site.backends.values():
        backend.default = Reply(404, b"not found\n", headers={"Cache-Control": MINUTE})
    assert site.edges["edge2"].get(LIST).status_code == 404
    site.stop_backends()
    # Whichever is asked first.
    for _ in range(4):
        answer = site.edges["edge1"].get(LIST)
        assert (answer.status_code, answer.text[:9]) == (404, "not found")
        assert answer.headers["X-Modhaven-Cache"] == "SIBLING"


def test_readiness_is_about_backends_and_no_sibling_is_asked(site: EdgeSite) -> None:
    fail(site, "/readyz", 503)
    answer = site.edges["edge1"].get("/readyz")
    assert (answer.status_code, answer.text) == (503, SAID)
    site.stop_backends()
    assert site.edges["edge1"].get("/readyz").status_code == 502
    assert site.edges["edge2"].log("modhaven-sibling") == []


def test_dead_and_silent_siblings_cost_a_bounded_time(site: EdgeSite) -> None:
    warm(site, "edge3", MOD, b"module example.com/a\n", YEAR)
    site.stop_backends()
    site.edges["edge2"].stop()
    for _ in range(4):
        assert site.edges["edge1"].get(MOD).headers["X-Modhaven-Sibling"] == "edge3"
    # It takes connections and says nothing, not even in the TLS handshake.
    with socket.create_server(("127.0.0.1", site.edges["edge2"].sibling_port)):
        answers = [site.edges["edge1"].get(MOD) for _ in range(4)]
    assert {answer.status_code for answer in answers} == {200}
    assert max(answer.elapsed.total_seconds() for answer in answers) < 3
    site.edges["edge3"].stop()
    answer = site.edges["edge1"].get(MOD)
    assert answer.status_code == 502
    assert answer.elapsed.total_seconds() < 3.5


@pytest.fixture(scope="module")
def two_edges(tmp_path_factory: pytest.TempPathFactory, program: Path) -> EdgeSite:
    """Two edges that trust the network: a plain socket can stand for the other one."""
    return EdgeSite(
        tmp_path_factory.mktemp("two") / "site", program, "edge1", "edge2",
        modhaven_mtls=False, edge_sibling_connections=4, edge_sibling_timeout_seconds=1,
    )  # fmt: skip


def test_the_only_sibling_is_asked_once(two_edges: EdgeSite) -> None:
    with two_edges as site:
        site.stop_backends()
        assert site.edges["edge1"].get(MOD).status_code == 502
        (line,) = site.edges["edge2"].log("modhaven-sibling", 1)
        assert line["status"] == 403


def test_the_only_sibling_is_left_alone_after_it_said_nothing(two_edges: EdgeSite) -> None:
    with two_edges as site:
        fail(site, MOD, 502)
        one, two = site.edges["edge1"], site.edges["edge2"]
        two.stop()
        with socket.create_server(("127.0.0.1", two.sibling_port)):
            answers = [one.get(MOD) for _ in range(6)]
        assert [(answer.status_code, answer.text) for answer in answers] == [(502, SAID)] * 6
        asked = [line["upstream"].partition(" : ")[2] for line in one.log(wanted=6)]
        assert asked == [f"127.0.0.1:{two.sibling_port}"] * 4 + ["modhaven_siblings"] * 2


def test_a_kept_connection_that_the_only_sibling_closes_costs_nothing(two_edges: EdgeSite) -> None:
    """As its nginx does in a reload: the request that was on its way is sent once more."""
    with two_edges as site:
        fail(site, MOD, 502)
        one, two = site.edges["edge1"], site.edges["edge2"]
        two.stop()

        # One connection is one worker.
        with (
            socket.create_server(("127.0.0.1", two.sibling_port)) as server,
            ThreadPoolExecutor(1) as sibling,
            requests.Session() as session,
        ):
            server.settimeout(10)
            ended = sibling.submit(answer_once_and_close_under_the_next, server)
            answers = [session.get(f"{one.url}{MOD}", timeout=30) for _ in range(2)]
            one.stop()
            ended.result()
        assert [(answer.status_code, answer.text) for answer in answers] == [(200, "ok")] * 2


def test_a_herd_that_every_backend_refuses_is_none_for_the_siblings(two_edges: EdgeSite) -> None:
    paths = [f"/example.com/m{number}/@v/v1.0.0.mod" for number in range(20)]
    with two_edges as site:
        for path in paths:
            fail(site, path, 503, **{"Retry-After": "2"})
        one, two = site.edges["edge1"], site.edges["edge2"]
        two.stop()
        silent = socket.create_server(("127.0.0.1", two.sibling_port))
        with silent, ThreadPoolExecutor(len(paths)) as pool:
            answers = list(pool.map(one.get, paths))
        assert [(answer.status_code, answer.text) for answer in answers] == [(503, SAID)] * 20
        assert {answer.headers["Retry-After"] for answer in answers} == {"2"}
        # Four waited in vain; nobody else did.
        asked = [line["upstream"].partition(" : ")[2] for line in one.log(wanted=20)]
        assert sorted(asked) == [f"127.0.0.1:{two.sibling_port}"] * 4 + ["modhaven_siblings"] * 16


def test_only_hosts_of_the_deployment_may_ask(site: EdgeSite) -> None:
    warm(site, "edge2", MOD, b"module example.com/a\n", YEAR)
    url = f"https://127.0.0.1:{site.edges['edge2'].sibling_port}{MOD}"
    pki = site.pki
    anonymous = requests.get(url, verify=str(pki / "ca.crt"), timeout=10)
    assert anonymous.status_code == 400
    assert b"module" not in anonymous.content
    own = (str(pki / "hosts/edge1.crt"), str(pki / "hosts/edge1.key"))
    assert requests.get(url, verify=str(pki / "ca.crt"), cert=own, timeout=10).ok
    refused = requests.post(url, verify=str(pki / "ca.crt"), cert=own, timeout=10)
    assert refused.status_code == 403


def test_a_sibling_of_another_deployment_is_not_believed(site: EdgeSite) -> None:
    warm(site, "edge2", MOD, b"module example.com/a\n", YEAR)
    site.stop_backends()
    # A backend of this deployment at an edge's address is not the edge.
    for kind in ("crt", "key"):
        file = site.pki / f"hosts/backend1.{kind}"
        (site.folder / f"edge2/pki/host.{kind}").write_text(file.read_text())
    site.edges["edge2"].stop()
    site.edges["edge2"].start()
    assert site.edges["edge1"].get(MOD).status_code == 502


def test_without_mutual_tls_only_the_edges_addresses_may_ask(tmp_path: Path, program: Path) -> None:
    with EdgeSite(tmp_path / "site", program, "edge1", "edge2", modhaven_mtls=False) as site:
        warm(site, "edge2", MOD, b"module example.com/a\n", YEAR)
        site.stop_backends()
        assert site.edges["edge1"].get(MOD).headers["X-Modhaven-Sibling"] == "edge2"
        url = f"127.0.0.1:{site.edges['edge2'].sibling_port}{MOD}"
        status = subprocess.run(
            ["curl", "--silent", "--interface", "127.0.0.9", "--output", "/dev/null",
             "--write-out", "%{http_code}", url],
            check=True, text=True, stdout=subprocess.PIPE,
        ).stdout  # fmt: skip
        assert status == "403"


@pytest.fixture(scope="module")
def lone_edge(tmp_path_factory: pytest.TempPathFactory, program: Path) -> EdgeSite:
    return EdgeSite(tmp_path_factory.mktemp("lone") / "site", program, "edge1")


def test_one_edge_alone_passes_on_what_a_backend_says_that_failed(lone_edge: EdgeSite) -> None:
    with lone_edge as site:
        for status in FAILURES:
            fail(site, MOD, status, **{"Retry-After": "2"})
            answer = site.edges["edge1"].get(MOD)
            assert (answer.status_code, answer.text) == (status, SAID)
            assert answer.headers["Retry-After"] == "2"
            assert "X-Modhaven-Reason" not in answer.headers


def test_one_edge_alone_has_no_trace_of_siblings(lone_edge: EdgeSite) -> None:
    with lone_edge as site:
        rendered = {
            path: path.read_text() for path in (site.folder / "edge1/nginx").rglob("*.conf")
        }
        assert [path for path in rendered if "siblings" in path.name] == []
        assert [path for path, text in rendered.items() if "@siblings" in text] == []
        site.stop_backends()
        answer = site.edges["edge1"].get(MOD)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (502, "no-store")
