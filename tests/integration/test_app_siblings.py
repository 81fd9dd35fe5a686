"""What backends are to each other: with every mirror down, all serve what one of them has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.conftest import Reply
from tests.integration.test_app_go import SUMDB_NAME, Client, holder_of_zip, serve, stored
from tests.unit.test_wsgi import BASE, INFO, MODULE, ZIP

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import FakeUpstream, GoTestServer
    from tests.integration.test_app_go import Server, Servers

__all__ = ["serve"]
pytestmark = pytest.mark.integration


def test_a_sibling_gives_what_it_holds_when_every_mirror_has_failed(
    serve: Servers, fake: FakeUpstream, refused_url: str
) -> None:
    sibling = holder_of_zip(serve, fake)
    peers = [{"name": "gone", "url": refused_url}, {"name": "backend2", "url": sibling.url}]
    server = serve(refused_url, sumdb="off", peers=peers)

    answer = server.get(f"{BASE}.zip")

    assert answer.content == ZIP
    assert answer.headers["X-Modhaven-Source"] == "backend2"
    assert stored(server) == [f"{BASE}.zip"]


def test_a_sibling_is_asked_before_mirrors_that_have_all_failed_are_asked_again(
    serve: Servers, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    sibling = holder_of_zip(serve, fake)
    peers = [{"name": "backend2", "url": sibling.url}]
    server = serve(fake2.url, sumdb="off", peers=peers, upstream_retries=0, upstream_rounds=3)
    for extension in ("zip", "mod"):
        fake2.script(f"{BASE}.{extension}", Reply(status=503))
    answer = server.get(f"{BASE}.zip")
    assert (answer.content, answer.headers["X-Modhaven-Source"]) == (ZIP, "backend2")
    assert fake2.counts[f"{BASE}.zip"] == 1
    # What no sibling has, the mirrors are asked for as often as they may be.
    assert server.get(f"{BASE}.mod").status_code == 502
    assert fake2.counts[f"{BASE}.mod"] == 3


def test_siblings_never_ask_on_and_the_mirrors_failure_is_what_is_told(
    serve: Servers, fake: FakeUpstream, refused_url: str
) -> None:
    sibling = serve(fake.url, sumdb="off")
    server = serve(refused_url, sumdb="off", peers=[{"name": "backend2", "url": sibling.url}])

    answer = server.get(f"{BASE}.zip")

    assert answer.status_code == 502
    assert "connection refused" in answer.text
    assert "backend2" not in answer.text
    assert not fake.counts


def test_what_every_mirror_says_it_has_not_no_sibling_is_asked_for(
    serve: Servers, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    server = serve(fake.url, sumdb="off", peers=[{"name": "backend2", "url": fake2.url}])
    assert server.get(f"{BASE}.zip").status_code == 404
    assert not fake2.counts


def beside(*siblings: Server) -> list[dict[str, str]]:
    return [{"name": f"sibling{n}", "url": one.url} for n, one in enumerate(siblings)]


def test_a_build_works_at_a_backend_that_has_nothing_with_everything_else_down(
    tmp_path: Path, serve: Servers, go_server: GoTestServer
) -> None:
    sibling = serve(go_server.root)
    Client(tmp_path / "first", sibling.url).build_and_run()
    go_server.stop()
    server = serve(go_server.root, peers=beside(sibling))

    Client(tmp_path / "second", server.url).build_and_run()

    # The sibling gave what proves the modules, too.
    assert not any(record.get("unverified") for record in server.log())
    lookups = [one for one in server.log() if f"/sumdb/{SUMDB_NAME}/lookup/" in one["path"]]
    assert {one["source"] for one in lookups} <= {"sibling0", "store"}
    assert lookups


def test_lists_and_latest_are_what_all_backends_know_together_and_labelled(
    serve: Servers, fake: FakeUpstream, refused_url: str
) -> None:
    def holder(*versions: str) -> Server:
        server = serve(fake.url, sumdb="off")
        for version in versions:
            name = f"{MODULE}/@v/{version}.info"
            fake.script(name, Reply(body=json.dumps({"Version": version}).encode()))
            assert server.get(name).status_code == 200
        return server

    siblings = [holder("v1.0.0", "v1.10.0"), holder("v1.2.0", "v1.0.0"), holder()]
    fake.script(f"{MODULE}/@v/master.info", Reply(body=INFO))
    assert siblings[1].get(f"{MODULE}/@v/master.info").content == INFO
    for own in ((), ("v1.3.0",)):
        before = holder(*own)
        before.stop()
        store = {"path": str(before.store), "min_free_bytes": 0}
        server = serve(refused_url, sumdb="off", peers=beside(*siblings), store=store)
        versions = server.get(f"{MODULE}/@v/list")
        latest = server.get(f"{MODULE}/@latest")
        branch = server.get(f"{MODULE}/@v/master.info")
        assert versions.text.split() == sorted(
            ["v1.0.0", "v1.2.0", "v1.10.0", *own], key=lambda one: int(one.split(".")[1])
        )
        assert latest.json()["Version"] == "v1.10.0"
        assert branch.content == INFO
        for answer in (versions, latest, branch):
            assert int(answer.headers["X-Modhaven-Stale"]) >= 0
            assert answer.headers["Cache-Control"] == "public, max-age=10"


def test_what_no_backend_knows_fails_as_the_mirrors_did(
    serve: Servers, fake: FakeUpstream, refused_url: str
) -> None:
    sibling = serve(fake.url, sumdb="off")
    server = serve(refused_url, sumdb="off", peers=beside(sibling))
    for end in ("@v/list", "@latest", "@v/master.info"):
        answer = server.get(f"{MODULE}/{end}")
        assert answer.status_code == 502
        assert "connection refused" in answer.text
    assert not fake.counts


def test_a_list_that_every_mirror_says_it_has_not_is_no_siblings_to_tell(
    serve: Servers, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake2.script(f"{MODULE}/@v/list", Reply(body=b"v1.0.0\n"))
    sibling = serve(fake2.url, sumdb="off")
    assert sibling.get(f"{MODULE}/@v/list").status_code == 200
    server = serve(fake.url, sumdb="off", peers=beside(sibling))
    assert server.get(f"{MODULE}/@v/list").status_code == 404


def test_what_a_sibling_says_amiss_does_no_harm(
    serve: Servers, fake: FakeUpstream, fake2: FakeUpstream, refused_url: str
) -> None:
    long = "v1.0." + 5000 * "1"
    own = {"name": "amiss", "url": fake.url}
    good = {"name": "good", "url": fake2.url}
    server = serve(refused_url, sumdb="off", peers=[own, good])
    below = f"cached-only/{MODULE}"
    age = {"X-Modhaven-Stale": "9" * 5000}
    fake.script(f"{below}/@v/list", Reply(body=f"v1.1.0\n{long}\n".encode(), headers=age))
    fake.script(f"{below}/@latest", Reply(body=json.dumps({"Version": long}).encode()))
    fake.script(f"{below}/@v/master.info", Reply(body=b"<html>"))
    fake2.script(f"{below}/@v/list", Reply(body=b"v1.0.0\n"))
    for path in ("@latest", "@v/master.info"):
        fake2.script(f"{below}/{path}", Reply(body=INFO))
    assert server.get(f"{MODULE}/@v/list").text == "v1.0.0\nv1.1.0\n"
    assert server.get(f"{MODULE}/@latest").content == INFO
    assert server.get(f"{MODULE}/@v/master.info").content == INFO


def test_with_no_upstream_wanted_lists_come_from_siblings(
    serve: Servers, fake: FakeUpstream
) -> None:
    fake.script(f"{MODULE}/@v/list", Reply(body=b"v1.0.0\n"))
    sibling = serve(fake.url, sumdb="off")
    assert sibling.get(f"{MODULE}/@v/list").text == "v1.0.0\n"
    server = serve("off", sumdb="off", peers=beside(sibling))
    answer = server.get(f"{MODULE}/@v/list")
    assert (answer.status_code, answer.text) == (200, "v1.0.0\n")
    assert answer.headers["X-Modhaven-Source"] == "sibling0"
