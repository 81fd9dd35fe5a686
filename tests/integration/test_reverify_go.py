"""Published before the checksum database answered, and after: with real processes and real sums."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from tests.conftest import ROOT, TEST_SUMDB, FakeUpstream, GoTestServer, Reply, free_port
from tests.integration.test_app_go import Client, Servers, serve, stored
from tests.unit.test_audit import figures
from tests.unit.test_wsgi import BASE, ZIP, make_zip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.test_app_go import Server

__all__ = ["serve"]
pytestmark = pytest.mark.integration
QUOTE = "rsc.io/quote/@v/v1.5.2"
BREAKER = {"failures": 3, "open_seconds": 0.5}


@pytest.fixture
def late_database(go_test_binary: tuple[str, str]) -> Iterator[GoTestServer]:
    """A checksum database that is down until the test starts it."""
    server = GoTestServer(*go_test_binary, free_port())
    yield server
    server.stop()


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def marks(server: Server) -> int:
    return sum(path.is_file() for path in (server.store / "unverified").rglob("*"))


def verify(server: Server) -> tuple[int, dict[str, int], str]:
    file = server.folder / "modhaven.yml"
    done = subprocess.run(
        [sys.executable, "-m", "modhaven.cli", "verify", "--config", file],
        env={**os.environ, "PYTHONPATH": str(ROOT / "app")},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, figures(done.stdout), done.stderr


def test_what_was_published_unverified_is_verified_when_the_database_answers(
    serve: Servers, go_server: GoTestServer, late_database: GoTestServer
) -> None:
    server = serve(
        f"{go_server.root}/sumdb-500",
        sumdb=f"{TEST_SUMDB} {late_database.root}/sumdb-direct",
        breaker=BREAKER,
    )
    for extension in ("mod", "zip"):
        assert server.get(f"{QUOTE}.{extension}").headers["X-Modhaven-Unverified"] == "1"
    # What is to be done outlives who was to do it.
    server.kill()
    server.start()
    assert marks(server) == 2
    late_database.start()
    eventually(lambda: not marks(server))
    # By one process of the two, each file once.
    said = (server.folder / "stderr").read_text()
    assert [said.count(f"{QUOTE}.{extension} is verified now") for extension in ("mod", "zip")] == [
        1,
        1,
    ]
    answer = server.get(f"{QUOTE}.zip")
    assert "X-Modhaven-Unverified" not in answer.headers
    assert "immutable" in answer.headers["Cache-Control"]


def test_what_the_database_contradicts_later_is_withdrawn(
    tmp_path: Path, serve: Servers, go_server: GoTestServer, late_database: GoTestServer
) -> None:
    server = serve(
        f"{go_server.root}/sumdb-500",
        sumdb=f"{TEST_SUMDB} {late_database.root}/sumdb-wrong",
        breaker=BREAKER,
    )
    for extension in ("info", "mod", "zip"):
        assert server.get(f"{QUOTE}.{extension}").status_code == 200
    listed = server.store / "cache/download/rsc.io/quote/@v/list"
    assert listed.read_text() == "v1.5.2\n"
    late_database.start()
    eventually(lambda: not marks(server))
    assert not any(QUOTE in path for path in stored(server))
    assert listed.read_text() == ""
    assert len(list((server.store / "quarantine").glob("*.reason"))) == 2
    errors = (server.folder / "stderr").read_text()
    for extension in ("mod", "zip"):
        (line,) = [text for text in errors.splitlines() if f"{QUOTE}.{extension} is with" in text]
        assert line.count("h1:") == 2
    # The store as a GOPROXY of its own has nothing of it either.
    files = Client(tmp_path / "files", f"file://{server.store}/cache/download", GOSUMDB="off")
    assert "no such file" in files.go("mod", "download", "rsc.io/quote@v1.5.2", ok=False)


def test_require_verified_makes_a_silent_database_a_refusal(
    tmp_path: Path, serve: Servers, go_server: GoTestServer
) -> None:
    server = serve(f"{go_server.root}/sumdb-500", require_verified=True)
    answer = server.get(f"{QUOTE}.zip")
    assert answer.status_code == 502
    assert "is not published: require_verified is set" in answer.text
    client = Client(tmp_path / "client", server.url, GOSUMDB="off")
    assert "require_verified" in client.go("mod", "download", "rsc.io/quote@v1.5.2", ok=False)
    assert not any(path.endswith((".mod", ".zip")) for path in stored(server))
    assert marks(server) == 0


def test_the_first_use_counts_where_no_database_is_asked(
    serve: Servers, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    fake.script(f"{BASE}.zip", Reply(body=ZIP), Reply(body=make_zip(b"evil")))
    fake2.script(f"{BASE}.zip", Reply(body=ZIP))
    server = serve(f"{fake.url}|{fake2.url}", nosumdb="example.com")
    assert server.get(f"{BASE}.zip").content == ZIP
    server.kill()
    (server.store / "cache/download" / f"{BASE}.zip").unlink()
    server.start()
    answer = server.get(f"{BASE}.zip")
    assert (answer.content, answer.headers["X-Modhaven-Source"]) == (ZIP, fake2.name)
    assert len(list((server.store / "quarantine").glob("*.reason"))) == 1


def test_the_whole_store_is_verified_without_any_network(
    tmp_path: Path, serve: Servers, go_server: GoTestServer, fake: FakeUpstream
) -> None:
    fake.script("rsc.io/quote/@v/v1.5.2.mod", Reply(body=b"module rsc.io/quote\n"))
    server = serve(f"{fake.url}|{go_server.root}", nosumdb="golang.org")
    Client(tmp_path / "first", server.url, GONOSUMDB="golang.org").build_and_run()
    go_server.stop()
    status, counts, _ = verify(server)
    assert status == 0
    assert counts["verified"] > 3
    assert counts["pinned"] > 0
    assert counts["checked"] == counts["verified"] + counts["pinned"] + counts["exempt"]
    # Quarantine, pins and marks are beside what GOPROXY=file:// sees.
    assert (server.store / "pins").is_dir()
    assert list((server.store / "quarantine").iterdir())
    folder = f"file://{server.store}/cache/download"
    Client(tmp_path / "second", folder, GOSUMDB="off").build_and_run()

    shutil.copy(server.store / f"cache/download/{QUOTE}.mod", tmp_path / "good.mod")
    with (server.store / f"cache/download/{QUOTE}.mod").open("a") as file:
        file.write("// rotten\n")
    status, counts, errors = verify(server)
    assert (status, counts["contradicted"]) == (1, 1)
    assert f"{QUOTE}.mod is withdrawn" in errors
    assert f"{QUOTE}.mod" not in stored(server)
    assert verify(server)[0] == 0


def test_a_seeded_store_is_marked_until_it_is_verified(
    tmp_path: Path, serve: Servers, go_server: GoTestServer
) -> None:
    first = Client(tmp_path / "first", go_server.root)
    first.build_and_run()
    server = serve("off")
    seed, target = first.folder / "modcache/cache/download", server.store / "cache/download"
    shutil.copytree(seed, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("sumdb"))
    status, counts, _ = verify(server)
    assert (status, counts["verified"]) == (0, 0)
    assert counts["unverified"] == marks(server) > 3
    folder = f"file://{server.store}/cache/download"
    Client(tmp_path / "second", folder, GOSUMDB="off").build_and_run()
