"""What an operator purges is fetched again, by every edge, and nothing else is."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster, origin
from tests.e2e.playbook import play
from tests.lab import faults, remote
from tests.lab.inventory import lab
from tests.lab.web import get

if TYPE_CHECKING:
    from collections.abc import Iterator

PURGE = "playbooks/purge.yml"
LAB = "inventories/lab"
MODULE = "rsc.io/quote"
VERSION = [f"/{MODULE}/@v/v1.5.2.{kind}" for kind in ("info", "mod", "zip")]
OTHERS = [f"/{MODULE}/@v/v1.5.1.mod", "/rsc.io/sampler/@v/v1.3.0.mod"]


@pytest.fixture(autouse=True)
def _whole() -> Iterator[None]:
    cluster.wait_until_whole()
    cluster.forget_edge_caches()
    yield
    cluster.wait_until_whole()


def fetch(path: str) -> str:
    """Fetch a path by way of each edge and of the VIP; return what the cache of the last said."""
    addresses = [edge.address for edge in lab().group("edges")]
    for address in [*addresses, cluster.vip()]:
        answer = get(address, path)
        assert answer.status == 200, answer.body
    return answer.headers["x-modhaven-cache"]


def asked_for() -> list[str]:
    """Return the paths that mirrors have been asked for since they were told to forget."""
    names = [name for host in lab().group("mirrors") for name in host.variables["mirror_names"]]
    seen = [faults.requests_seen(name) for name in names]
    return [str(one["path"]) for requests in seen for one in requests]


def was_fetched(path: str) -> bool:
    return any(seen.endswith(path) for seen in asked_for())


def cached(edge: str) -> set[str]:
    listed = remote.run(edge, "find", "/var/cache/modhaven", "-type", "f", "-printf", "%p %i\\n")
    return set(listed.stdout.splitlines())


def in_all(output: str) -> int:
    found = re.search(r"in all: ([0-9]+) files", output)
    assert found is not None, output
    return int(found[1])


def test_a_version_is_fetched_again_and_the_others_are_not() -> None:
    mirrored = {file.path: file.sha256 for file in origin.files()}
    for path in VERSION + OTHERS:
        fetch(path)
        cluster.wait_until_kept(cluster.vip(), path)
    edges = cluster.names("edges")
    before = {edge: cached(edge) for edge in edges}
    looked = play(PURGE, LAB, "-e", f"module={MODULE}@v1.5.2", "--check")
    assert looked.ok, looked.output
    assert not looked.changed()
    assert {edge: cached(edge) for edge in edges} == before
    purged = play(PURGE, LAB, "-e", f"module={MODULE}@v1.5.2")
    assert purged.ok, purged.output
    assert in_all(purged.output) == in_all(looked.output) > 0
    for edge in edges:
        assert edge in purged.changed()
        # The version's three files; its module's list and @latest were not asked for here.
        assert cached(edge) < before[edge]
        assert len(before[edge] - cached(edge)) == len(VERSION)
    faults.forget_requests()
    for path in OTHERS:
        assert fetch(path) == "HIT"
    assert not any(was_fetched(path) for path in OTHERS)
    for path in VERSION:
        answer = get(cluster.vip(), path)
        assert answer.headers["x-modhaven-cache"] == "MISS"
        assert origin.sha256(answer.body) == mirrored[path]
        assert was_fetched(path)
    for name in (*cluster.names("backends"), *edges):
        journal = remote.run(name, "journalctl", "-t", "modhaven-purge", "-n", "1", "-o", "cat")
        assert f"purged {MODULE}@v1.5.2: " in journal.stdout, name
        assert not journal.stdout.startswith("root "), "it names who did it"


def test_not_found_is_asked_about_again() -> None:
    path = f"/{MODULE}/@v/list"
    play(PURGE, LAB, "-e", f"module={MODULE}")
    names = [name for host in lab().group("mirrors") for name in host.variables["mirror_names"]]
    with (
        faults.mirror_fault(names[0], "status", code=404, match="quote/@v/list$"),
        faults.mirror_fault(names[1], "status", code=404, match="quote/@v/list$"),
        faults.mirror_fault(names[2], "status", code=404, match="quote/@v/list$"),
    ):
        for edge in lab().group("edges"):
            assert get(edge.address, path).status == 404
    assert get(cluster.vip(), path).status == 404
    purged = play(PURGE, LAB, "-e", "negative=true")
    assert purged.ok, purged.output
    for edge in lab().group("edges"):
        answer = get(edge.address, path)
        assert answer.status == 200
        assert b"v1.5.2" in answer.body


def test_a_host_that_cannot_be_reached_is_named_and_stops_nobody() -> None:
    fetch(VERSION[0])
    backup = cluster.backups()[0].name
    with faults.host_stopped(backup):
        purged = play(PURGE, LAB, "-e", f"module={MODULE}@v1.5.2")
        assert not purged.ok
        assert f"{backup} was not purged (backend)" in " ".join(purged.output.split())
        faults.forget_requests()
        fetch(VERSION[0])
        assert was_fetched(VERSION[0])


def test_what_names_nothing_to_purge_asks_no_host() -> None:
    for words in ([], ["-e", "module=quote"], ["-e", "module=a.b/c", "-e", "negative=true"]):
        refused = play(PURGE, LAB, *words)
        assert not refused.ok
        assert "Nothing was changed." in " ".join(refused.output.split())
        assert "TASK [Remove it here]" not in refused.output


def test_one_host_by_hand() -> None:
    fetch(VERSION[1])
    edge = cluster.names("edges")[0]
    command = ("/opt/modhaven/current/bin/modhaven", "purge", "--json", f"{MODULE}@v1.5.2")
    said = json.loads(remote.run(edge, *command).stdout)
    assert said["files"] == 1
    assert [one["where"] for one in said["places"]] == ["edge: immutable", "edge: mutable"]
