"""Sibling caches with real nginx: what another edge holds is served when no backend answers."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import requests
from tests.conftest import Reply
from tests.integration.edge_site import EdgeSite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration
MOD = "/example.com/a/@v/v1.0.0.mod"
ZIP = "/example.com/a/@v/v1.0.0.zip"
LIST = "/example.com/a/@v/list"
MINUTE = "public, max-age=60, stale-while-revalidate=60"


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
    warm(site, "edge2", MOD, b"module example.com/a\n", "public, max-age=31536000, immutable")
    warm(site, "edge2", ZIP, big, "public, max-age=31536000, immutable")
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
    assert [site.edges[name].log() for name in ("edge2", "edge3")] == [[], []]
    # A miss of a sibling is no failure: it is asked the next time, too.
    for _ in range(5):
        site.edges["edge1"].get(MOD)
    assert len(site.edges["edge2"].log("modhaven-sibling", 6)) == 6
    assert site.edges["edge2"].errors() == []
    assert all(edge.cached() == 0 for edge in site.edges.values())


def test_a_backend_that_answers_is_believed(site: EdgeSite) -> None:
    warm(site, "edge2", MOD, b"module example.com/a\n", "public, max-age=31536000, immutable")
    for status in (404, 502, 503, 504):
        for backend in site.backends.values():
            backend.script(MOD.lstrip("/"), Reply(status=status, body=b"the mirrors said so\n"))
        answer = site.edges["edge1"].get(MOD)
        assert (answer.status_code, answer.content) == (status, b"the mirrors said so\n")
    assert site.edges["edge2"].log("modhaven-sibling") == []


def test_a_cached_not_found_of_a_sibling_is_one(site: EdgeSite) -> None:
    for backend in site.backends.values():
        backend.default = Reply(404, b"not found\n", headers={"Cache-Control": MINUTE})
    assert site.edges["edge2"].get(LIST).status_code == 404
    site.stop_backends()
    answer = site.edges["edge1"].get(LIST)
    assert (answer.status_code, answer.content) == (404, b"not found\n")
    assert answer.headers["X-Modhaven-Cache"] == "SIBLING"


def test_readiness_is_about_backends_and_no_sibling_is_asked(site: EdgeSite) -> None:
    site.stop_backends()
    assert site.edges["edge1"].get("/readyz").status_code == 502
    assert site.edges["edge2"].log("modhaven-sibling") == []


def test_dead_and_silent_siblings_cost_a_bounded_time(site: EdgeSite) -> None:
    warm(site, "edge3", MOD, b"module example.com/a\n", "public, max-age=31536000, immutable")
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


def test_only_hosts_of_the_deployment_may_ask(site: EdgeSite) -> None:
    warm(site, "edge2", MOD, b"module example.com/a\n", "public, max-age=31536000, immutable")
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
    warm(site, "edge2", MOD, b"module example.com/a\n", "public, max-age=31536000, immutable")
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
        warm(site, "edge2", MOD, b"module example.com/a\n", "public, max-age=31536000, immutable")
        site.stop_backends()
        assert site.edges["edge1"].get(MOD).headers["X-Modhaven-Sibling"] == "edge2"
        url = f"127.0.0.1:{site.edges['edge2'].sibling_port}{MOD}"
        status = subprocess.run(
            ["curl", "--silent", "--interface", "127.0.0.9", "--output", "/dev/null",
             "--write-out", "%{http_code}", url],
            check=True, text=True, stdout=subprocess.PIPE,
        ).stdout  # fmt: skip
        assert status == "403"


def test_one_edge_alone_has_no_trace_of_siblings(tmp_path: Path, program: Path) -> None:
    with EdgeSite(tmp_path / "site", program, "edge1") as site:
        rendered = {
            path: path.read_text() for path in (site.folder / "edge1/nginx").rglob("*.conf")
        }
        assert [path for path in rendered if "siblings" in path.name] == []
        assert [path for path, text in rendered.items() if "@siblings" in text] == []
        site.stop_backends()
        answer = site.edges["edge1"].get(MOD)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (502, "no-store")
