"""A purge on a host that is edge and backend, as deployed; proven by fetching again."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.bench.loopback import Site, Tools, scratch
from tests.conftest import ROOT, FakeUpstream, Reply
from tests.unit.test_wsgi import BASE, MOD, ZIP

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

MODULE = "example.com/m"


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    fake = FakeUpstream()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def site(upstream: FakeUpstream) -> Iterator[Site]:
    with scratch() as folder, Site(folder / "purge", Tools.fetch(), upstream.url, sumdbs=()) as it:
        yield it


@pytest.fixture(autouse=True)
def _nothing_kept(site: Site, upstream: FakeUpstream) -> None:
    upstream.replies.clear()
    purge(site, "--prefix", "example.com", "--pins")
    # What is no path of a module is below no prefix, and its not-found is kept as well.
    purge(site, "--negative")
    upstream.counts.clear()


def purge(site: Site, *words: str, status: int = 0) -> dict[str, Any]:
    """Run the command on the site; return what it says with --json, or its error."""
    done = subprocess.run(
        [sys.executable, "-m", "modhaven.cli", "purge", "--root", site.folder, "--json",
         "--config", site.folder / "modhaven.yml", *words],
        check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "app")},
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    said: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return said | {"error": done.stderr, "by": {p["where"]: p["files"] for p in said["places"]}}


def ask(site: Site, path: str, *, cache: str = "") -> requests.Response:
    """Ask the edge; ``cache`` is what it has to say of its cache."""
    answer = requests.get(f"{site.edge}/{path}", timeout=30)
    if cache:
        assert answer.headers["X-Modhaven-Cache"] == cache, path
    return answer


def ask_until_kept(site: Site, path: str) -> requests.Response:
    """Ask the edge for what it was just given.

    nginx ends an answer a moment before its file has its name, and fetches it anew just then.
    """
    end = time.monotonic() + 10
    while (answer := ask(site, path)).headers["X-Modhaven-Cache"] != "HIT":
        assert time.monotonic() < end, path
    return answer


def ask_at_once(site: Site, path: str) -> set[int]:
    """Ask the backend many times at once, so that every worker is asked; return the statuses."""
    with ThreadPoolExecutor(8) as pool:
        return {answer.status_code for answer in pool.map(site.get, [path] * 40)}


def info(version: str, **more: object) -> Reply:
    return Reply(body=json.dumps({"Version": version, **more}).encode())


def fill(site: Site, upstream: FakeUpstream, replies: dict[str, Reply]) -> None:
    """Have the edge and the backend keep these answers."""
    for path, reply in replies.items():
        upstream.script(path, reply)
        assert ask(site, path, cache="MISS").status_code == 200
        assert ask_until_kept(site, path).content == reply.body
        assert upstream.counts[path] == 1


OF_THE_VERSION = {
    f"{BASE}.info": info("v1.0.0"),
    f"{BASE}.mod": Reply(body=MOD),
    f"{BASE}.zip": Reply(body=ZIP),
    f"{MODULE}/@v/list": Reply(body=b"v1.0.0\n"),
    f"{MODULE}/@latest": info("v1.0.0"),
    f"{MODULE}/@v/main.info": info("v1.0.0"),
}
OF_THE_MODULE = {
    f"{MODULE}/@v/v1.0.1.info": info("v1.0.1"),
    f"{MODULE}/@v/v1.0.1.mod": Reply(body=MOD),
}
BELOW = {
    f"{MODULE}/sub/@v/list": Reply(body=b"v1.0.0\n"),
    f"{MODULE}/!upper/@v/v1.0.0.info": info("v1.0.0"),
}
BESIDE = {f"{MODULE}m/@v/list": Reply(body=b"v1.0.0\n"), f"{MODULE}m/@latest": info("v1.0.0")}


@pytest.mark.parametrize(
    ("words", "goes", "stays"),
    [
        ([f"{MODULE}@v1.0.0"], OF_THE_VERSION, OF_THE_MODULE | BELOW | BESIDE),
        ([MODULE], OF_THE_VERSION | OF_THE_MODULE, BELOW | BESIDE),
        (["--prefix", MODULE], OF_THE_VERSION | OF_THE_MODULE | BELOW, BESIDE),
    ],
)
def test_what_is_purged_is_fetched_again_and_nothing_else(
    site: Site,
    upstream: FakeUpstream,
    words: list[str],
    goes: dict[str, Reply],
    stays: dict[str, Reply],
) -> None:
    fill(site, upstream, goes | stays)
    would = purge(site, *words, "--dry-run")
    said = purge(site, *words)
    assert would["by"] == said["by"]
    assert len(would["would_remove"]) == said["files"]
    assert said["bytes"] == would["bytes"] > 0
    files = [path for path in goes if not path.endswith(("/list", "/@latest", "main.info"))]
    assert said["by"]["backend: files"] == len(files) + len(
        # The store's own list of each module whose .info it holds.
        {path.partition("/@v/")[0] for path in files if path.endswith(".info")}
    )
    assert said["by"]["backend: answers"] == len(goes) - len(files)
    assert said["by"]["edge: immutable"] == len(files)
    assert said["by"]["edge: mutable"] == len(goes) - len(files)
    for path, reply in goes.items():
        assert ask(site, path, cache="MISS").content == reply.body
        assert upstream.counts[path] == 2, path
    for path, reply in stays.items():
        assert ask(site, path, cache="HIT").content == reply.body
        assert site.get(path).content == reply.body
        assert upstream.counts[path] == 1, path


def test_the_origins_new_answers_are_given(site: Site, upstream: FakeUpstream) -> None:
    fill(site, upstream, OF_THE_VERSION)
    upstream.script(f"{MODULE}/@v/list", Reply(body=b"v1.0.0\nv1.1.0\n"))
    new = info("v1.0.0", Time="2024-01-02T03:04:05Z")
    upstream.script(f"{BASE}.info", new)
    assert ask(site, f"{MODULE}/@v/list").content == b"v1.0.0\n"
    purge(site, f"{MODULE}@v1.0.0")
    assert ask(site, f"{MODULE}/@v/list").content == b"v1.0.0\nv1.1.0\n"
    assert ask(site, f"{BASE}.info").content == new.body


def test_both_spellings_of_an_upper_case_letter_are_one_entry(
    site: Site, upstream: FakeUpstream
) -> None:
    path = "example.com/!m/@v/v1.0.0.info"
    upstream.script(path, info("v1.0.0"))
    odd = "example.com/%21m/@v/v1.0.0.info"
    ask(site, odd, cache="MISS")
    ask_until_kept(site, odd)
    ask(site, path, cache="HIT")
    assert purge(site, "example.com/M@v1.0.0")["by"]["edge: immutable"] == 1
    ask(site, path, cache="MISS")
    assert upstream.counts[path] == 2


def test_a_file_of_the_store_has_one_spelling(site: Site, upstream: FakeUpstream) -> None:
    """What edges keep under another key would outlive a purge."""
    fill(site, upstream, {f"{BASE}.mod": Reply(body=MOD)})
    for path in (f"{BASE}.mod%0a", f"{BASE}.mod".replace("/@v/", "//@v/"), f"/{BASE}.mod"):
        assert ask(site, path).status_code in (400, 404), path
    purge(site, f"{MODULE}@v1.0.0")
    kept = (path for path in (site.folder / "cache").rglob("*") if path.is_file())
    assert not [path for path in kept if MOD in path.read_bytes()]


def test_not_found_is_forgotten_by_the_edge_and_by_every_worker(
    site: Site, upstream: FakeUpstream
) -> None:
    path = f"{MODULE}/@v/list"
    upstream.script(f"{MODULE}/@latest", info("v1.0.0"))
    ask_until_kept(site, f"{MODULE}/@latest")
    assert ask(site, path, cache="MISS").status_code == 404
    assert ask_until_kept(site, path).status_code == 404
    # Until each of the two workers has asked once, and remembers.
    end = time.monotonic() + 30
    while upstream.counts[path] < 2:
        assert ask_at_once(site, path) == {404}
        assert time.monotonic() < end
    assert ask_at_once(site, path) == {404}
    assert upstream.counts[path] == 2
    upstream.script(path, Reply(body=b"v1.0.0\n"))
    assert ask(site, path, cache="HIT").status_code == 404
    assert site.get(path).status_code == 404
    said = purge(site, "--negative")
    assert said["by"] == {"backend: memory": 0, "edge: immutable": 0, "edge: mutable": 1}
    for _ in range(3):
        assert ask_at_once(site, path) == {200}
    assert ask(site, path, cache="MISS").content == b"v1.0.0\n"
    ask(site, f"{MODULE}/@latest", cache="HIT")


LIST, INFO = f"{MODULE}/@v/list", f"{BASE}.info"
OLD_INFO, NEW_INFO = info("v1.0.0"), info("v1.0.0", Time="2024-01-02T03:04:05Z")


@pytest.mark.parametrize(
    ("path", "what", "old", "new"),
    [
        (LIST, MODULE, Reply(body=b"v1.0.0\n"), Reply(body=b"v1.1.0\n")),
        (INFO, MODULE, OLD_INFO, NEW_INFO),
        (LIST, "--negative", Reply(status=404), Reply(body=b"v1.1.0\n")),
    ],
)
def test_a_fetch_that_was_under_way_brings_nothing_back(  # noqa: PLR0917 - a row of the table
    site: Site, upstream: FakeUpstream, path: str, what: str, old: Reply, new: Reply
) -> None:
    answers = threading.Event()
    upstream.script(path, dataclasses.replace(old, after=answers), new)
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(site.get, path)
        while not upstream.counts[path]:
            assert not before.done()
            time.sleep(0.01)
        purge(site, what, "--only", "backend")
        if path == LIST:
            # Who asks now does not wait with those from before.
            assert site.get(path).content == new.body
        answers.set()
        assert site.get(path).content == new.body
        assert before.result().content == new.body
    for _ in range(20):
        assert site.get(path).content == new.body


def test_a_file_that_nginx_has_open_is_gone_when_the_command_returns(
    site: Site, upstream: FakeUpstream
) -> None:
    path = f"{BASE}.mod"
    upstream.script(path, Reply(body=MOD))
    stop = threading.Event()

    def keep_it_open() -> None:
        while not stop.is_set():
            site.get(path)

    ask(site, path)
    asking = threading.Thread(target=keep_it_open)
    asking.start()
    try:
        # Whoever asks meanwhile must not have it fetched again from where it was.
        upstream.script(path, Reply(status=404))
        purge(site, f"{MODULE}@v1.0.0")
        assert site.get(path).status_code == 404
        assert ask(site, path).status_code == 404
    finally:
        stop.set()
        asking.join()


def test_pins_stay_unless_they_are_named(site: Site, upstream: FakeUpstream) -> None:
    path = f"{BASE}.mod"
    fill(site, upstream, {path: Reply(body=MOD)})
    upstream.script(path, Reply(body=MOD + b"\n// other\n"))
    assert purge(site, MODULE)["by"]["backend: pins"] == 0
    assert "first used" in ask(site, path).text
    assert purge(site, MODULE, "--pins")["by"]["backend: pins"] == 1
    assert ask(site, path).content == MOD + b"\n// other\n"


def test_an_answer_that_is_being_received_is_not_kept(site: Site, upstream: FakeUpstream) -> None:
    """nginx writes it beside its place, under the same name with a number."""
    path = f"{BASE}.zip"
    fill(site, upstream, {path: Reply(body=ZIP)})
    (cached,) = (site.folder / "cache/immutable").glob("*/*/*")
    receiving = cached.with_name(f"{cached.name}.0000000001")
    receiving.write_bytes(cached.read_bytes())
    assert purge(site, f"{MODULE}@v1.0.0")["by"]["edge: immutable"] == 2
    assert not receiving.exists()


def test_a_file_that_is_gone_when_nginx_sends_it_is_not_kept_as_not_found(
    site: Site, upstream: FakeUpstream
) -> None:
    path = f"{BASE}.mod"
    fill(site, upstream, {path: Reply(body=MOD)})
    purge(site, MODULE, "--only", "edge")
    file = site.store / "cache/download" / path
    # There for the app, and not for nginx.
    file.chmod(0)
    answer = ask(site, path)
    assert answer.status_code == 503
    assert "removed" in answer.text
    assert site.get(path).headers["X-Modhaven-Reason"] == answer.text.rstrip("\n")
    file.chmod(0o640)
    assert ask(site, path).content == MOD


def test_what_cannot_be_done_is_a_sentence(site: Site) -> None:
    empty = site.folder / "files"
    done = subprocess.run(
        [sys.executable, "-m", "modhaven.cli", "purge", "--root", empty, MODULE],
        check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "app")},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("modhaven: there is nothing to purge on ")
    assert done.stderr.count("\n") == 1
