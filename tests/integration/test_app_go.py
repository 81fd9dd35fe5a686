"""The real go command, through a real ``modhaven serve``, from the Go team's own test modules."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml
from tests.conftest import (
    ROOT,
    TEST_SUMDB,
    FakeUpstream,
    GoTestServer,
    Reply,
    free_port,
    wait_for_port,
)
from tests.unit.test_wsgi import BASE, INFO, MOD, ZIP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.integration
GO = Path(sys.prefix) / "bin" / "go"
SUMDB_NAME = "localhost.localdev/sumdb"


def is_alive(group: int) -> bool:
    """Whether a process of a group lives; the dead may wait long for init to take note of them."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # proc(5): state, parent and group follow the name, which may have spaces.
            state, _, its = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its) == group and state not in "ZX":
                return True
    return False


class Server:
    """A ``modhaven serve`` in processes of its own."""

    def __init__(self, folder: Path, chain: str | list[dict[str, Any]], **changes: Any) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {
            "node": "backend1",
            "listen": f"127.0.0.1:{self.port}",
            "store": {"path": str(self.store), "min_free_bytes": 0},
            "upstreams": chain,
            "upstream_timeouts": {"connect_seconds": 1, "first_byte_seconds": 1},
            # Nobody answers at the database itself: the chain's own sumdb paths must do.
            "sumdb": f"{TEST_SUMDB} http://127.0.0.1:9",
            "drain_file": str(folder / "drain"),
            **changes,
        }
        (folder / "modhaven.yml").write_text(yaml.safe_dump(settings))
        self.start()

    def start(self) -> None:
        with (self.folder / "stdout").open("ab") as out, (self.folder / "stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modhaven.cli", "serve",
                 "--config", self.folder / "modhaven.yml"],
                stdout=out, stderr=err, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT / "app")},
            )  # fmt: skip
        wait_for_port(self.port, self.process)

    def kill(self) -> None:
        """SIGKILL the arbiter and its workers at once, as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # As long as a worker is dying, it holds the port: the next server would be mistaken for it.
        end = time.monotonic() + 10
        while is_alive(self.process.pid) and time.monotonic() < end:
            time.sleep(0.01)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(40)

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(f"{self.url}/{path}", timeout=60, **options)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "stdout").read_text().splitlines()]


class Servers:
    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self.started: list[Server] = []

    def __call__(self, chain: str | list[dict[str, Any]], **changes: Any) -> Server:
        folder = self._tmp_path / f"server{len(self.started)}"
        folder.mkdir()
        server = Server(folder, chain, **changes)
        self.started.append(server)
        return server


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    for server in servers.started:
        if server.process.poll() is None:
            server.kill()
        errors = (server.folder / "stderr").read_text()
        assert "Traceback" not in errors, errors


class Client:
    """A developer's machine with an empty module cache."""

    def __init__(self, folder: Path, goproxy: str, **env: str) -> None:
        self.folder = folder
        folder.mkdir()
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GOMODCACHE": str(folder / "modcache"),
            # Shared: compiling the standard library again for each test would take a minute.
            "GOCACHE": str(ROOT / ".lab" / "go-build-cache"),
            "GOPROXY": goproxy,
            "GOSUMDB": TEST_SUMDB,
            "GOFLAGS": "-mod=mod -modcacherw",
            "GOTOOLCHAIN": "local",
            **env,
        }
        (folder / "go.mod").write_text(
            "module example.com/hello\n\ngo 1.21\n\nrequire rsc.io/quote v1.5.2\n"
        )
        (folder / "hello.go").write_text(
            'package main\n\nimport "rsc.io/quote"\n\nfunc main() { println(quote.Hello()) }\n'
        )

    def go(self, *arguments: str, ok: bool = True) -> str:
        done = subprocess.run(
            [GO, *arguments], cwd=self.folder, env=self._env, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) is ok, done.stdout
        return done.stdout

    def build_and_run(self) -> None:
        self.go("mod", "download", "rsc.io/quote@v1.5.2")
        self.go("build", "-o", "hello", ".")
        done = subprocess.run(
            [self.folder / "hello"], text=True, capture_output=True, check=True, timeout=10
        )
        assert "Hello, world." in done.stderr


def holder_of_zip(serve: Servers, fake: FakeUpstream) -> Server:
    """Give a server that has the zip, of a mirror that has it, too."""
    fake.script(f"{BASE}.zip", Reply(body=ZIP))
    server = serve(fake.url, sumdb="off")
    assert server.get(f"{BASE}.zip").content == ZIP
    return server


def stored(server: Server) -> list[str]:
    root = server.store / "cache" / "download"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_build_works_and_again_without_any_upstream(
    tmp_path: Path, serve: Servers, go_server: GoTestServer
) -> None:
    server = serve(go_server.root)
    Client(tmp_path / "first", server.url).build_and_run()
    assert not any(record.get("unverified") for record in server.log())
    go_server.stop()
    before = len(server.log())
    Client(tmp_path / "second", server.url).build_and_run()
    assert all(record["status"] == 200 for record in server.log()[before:])
    assert "rsc.io/quote/@v/v1.5.2.zip" in stored(server)


def test_the_store_is_a_goproxy_of_its_own(
    tmp_path: Path, serve: Servers, go_server: GoTestServer
) -> None:
    server = serve(go_server.root)
    Client(tmp_path / "first", server.url).build_and_run()
    go_server.stop()
    server.stop()
    files = Client(tmp_path / "second", f"file://{server.store}/cache/download", GOSUMDB="off")
    files.build_and_run()
    assert "v1.5.2" in files.go("list", "-m", "-versions", "rsc.io/quote")


def test_a_module_cache_seeds_the_store(
    tmp_path: Path, serve: Servers, go_server: GoTestServer
) -> None:
    first = Client(tmp_path / "first", go_server.root)
    first.build_and_run()
    server = serve("off")
    seed, target = first.folder / "modcache/cache/download", server.store / "cache/download"
    shutil.copytree(seed, target, dirs_exist_ok=True)
    Client(tmp_path / "second", server.url, GOSUMDB="off").build_and_run()


@pytest.fixture(params=["refused", "black hole", "500", "rubbish", "redirect loop"])
def bad_mirror(
    request: pytest.FixtureRequest, go_server: GoTestServer, fake: FakeUpstream, refused_url: str
) -> str:
    fake.default = Reply(hang=True)
    mirrors = {
        "refused": refused_url,
        "black hole": fake.url,
        "500": f"{go_server.root}/500",
        "rubbish": f"{go_server.root}/invalid",
        "redirect loop": f"{go_server.root}/redirect/50",
    }
    return mirrors[request.param]


def test_the_next_mirror_serves(
    tmp_path: Path, serve: Servers, go_server: GoTestServer, fake: FakeUpstream, bad_mirror: str
) -> None:
    server = serve(f"{bad_mirror}|{go_server.root}", workers=1)
    start = time.monotonic()
    Client(tmp_path / "client", server.url).build_and_run()
    assert time.monotonic() - start < 15
    # One timeout for those who came while nobody knew, none for those who came later.
    slow = [record for record in server.log() if record["milliseconds"] > 900]
    assert len(slow) <= (2 if bad_mirror == fake.url else 0), slow
    assert not any(record.get("unverified") for record in server.log())


def test_what_the_database_contradicts_is_never_served(
    serve: Servers, go_server: GoTestServer
) -> None:
    server = serve(
        f"{go_server.root}/sumdb-404", sumdb=f"{TEST_SUMDB} {go_server.root}/sumdb-wrong"
    )
    for extension in ("mod", "zip"):
        answer = server.get(f"rsc.io/quote/@v/v1.5.2.{extension}")
        assert (answer.status_code, "wrong bytes: hash is h1:" in answer.text) == (502, True)
    assert not any(path.startswith("rsc.io") for path in stored(server))
    assert len(list((server.store / "quarantine").glob("*.reason"))) == 2


def test_the_database_itself_is_asked_when_no_mirror_has_it(
    serve: Servers, go_server: GoTestServer
) -> None:
    server = serve(
        f"{go_server.root}/sumdb-500", sumdb=f"{TEST_SUMDB} {go_server.root}/sumdb-direct"
    )
    answer = server.get("rsc.io/quote/@v/v1.5.2.zip")
    assert (answer.status_code, "X-Modhaven-Unverified" in answer.headers) == (200, False)
    lookup = server.get(f"sumdb/{SUMDB_NAME}/lookup/rsc.io/sampler@v1.3.0")
    assert lookup.headers["X-Modhaven-Source"] == SUMDB_NAME


def test_without_any_database_modules_are_served_and_marked(
    serve: Servers, go_server: GoTestServer
) -> None:
    server = serve(f"{go_server.root}/sumdb-500")
    answer = server.get("rsc.io/quote/@v/v1.5.2.zip")
    assert (answer.status_code, answer.headers.get("X-Modhaven-Unverified")) == (200, "1")


def test_wrong_bytes_never_reach_a_build(
    tmp_path: Path, serve: Servers, go_server: GoTestServer, fake: FakeUpstream
) -> None:
    fake.script("rsc.io/quote/@v/v1.5.2.mod", Reply(body=b"module rsc.io/quote\n"))
    server = serve(f"{fake.url}|{go_server.root}")
    Client(tmp_path / "client", server.url).build_and_run()
    assert len(list((server.store / "quarantine").glob("*.reason"))) == 1


def test_a_truncated_body_is_never_published(serve: Servers, fake: FakeUpstream) -> None:
    server = serve(fake.url, sumdb="off")
    fake.script(f"{BASE}.zip", Reply(body=ZIP, cut=10))
    assert server.get(f"{BASE}.zip").status_code == 502
    assert stored(server) == []
    fake.script(f"{BASE}.zip", Reply(body=ZIP))
    assert server.get(f"{BASE}.zip").content == ZIP


def test_sigkill_in_mid_fetch_leaves_nothing_half_written(
    serve: Servers, fake: FakeUpstream
) -> None:
    server = serve(fake.url, sumdb="off", upstream_timeouts={"first_byte_seconds": 30})
    fake.script(f"{BASE}.zip", Reply(hang=True))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.get, f"{BASE}.zip")
        end = time.monotonic() + 10
        while not fake.counts.total():
            assert time.monotonic() < end
            time.sleep(0.01)
        server.kill()
        assert isinstance(asked.exception(), requests.ConnectionError)
    assert stored(server) == []
    fake.script(f"{BASE}.zip", Reply(body=ZIP))
    server.start()
    assert server.get(f"{BASE}.zip").content == ZIP
    assert stored(server) == [f"{BASE}.zip"]


def test_fifty_cold_requests_are_one_fetch(serve: Servers, fake: FakeUpstream) -> None:
    server = serve(fake.url, sumdb="off")
    fake.script(f"{BASE}.zip", Reply(body=ZIP, delay_seconds=0.5))
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: server.get(f"{BASE}.zip"), range(50)))
    assert all(answer.content == ZIP for answer in answers)
    assert fake.counts[f"{BASE}.zip"] == 1


def test_requests_under_way_finish_when_the_server_stops(
    serve: Servers, fake: FakeUpstream
) -> None:
    server = serve(fake.url, sumdb="off", upstream_timeouts={"first_byte_seconds": 30})
    fake.script(f"{BASE}.zip", Reply(body=ZIP, delay_seconds=1.5))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.get, f"{BASE}.zip")
        end = time.monotonic() + 10
        while not fake.counts.total():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert server.stop() == 0
        assert asked.result().content == ZIP


# Descriptor 3, and LISTEN_PID of the process itself: sd_listen_fds(3).
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "modhaven.cli", "serve", "--config", sys.argv[2]])
"""


def test_systemd_hands_over_its_socket(tmp_path: Path, fake: FakeUpstream) -> None:
    fake.script(f"{BASE}.mod", Reply(body=MOD))
    notified = tmp_path / "notify"
    settings = {"upstreams": fake.url, "sumdb": "off", "listen": "127.0.0.1:1", "workers": 1,
                "store": {"path": str(tmp_path / "store")}}  # fmt: skip
    (tmp_path / "modhaven.yml").write_text(yaml.safe_dump(settings))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        notify.bind(str(notified))
        notify.settimeout(20)
        process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, str(listener.fileno()), tmp_path / "modhaven.yml"],
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONPATH": str(ROOT / "app"), "NOTIFY_SOCKET": str(notified)},
        )
        try:
            assert notify.recv(4096).startswith(b"READY=1")
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert requests.get(f"{url}/{BASE}.mod", timeout=10).content == MOD
        finally:
            process.terminate()
            assert process.wait(30) == 0


def test_sighup_reads_the_configuration_again(serve: Servers, fake: FakeUpstream) -> None:
    server = serve(fake.url, sumdb="off")
    file = server.folder / "modhaven.yml"
    good = file.read_text()
    assert server.get("healthz").headers["X-Modhaven-Backend"] == "backend1"

    def reload(text: str, done: Callable[[], bool]) -> None:
        file.write_text(text)
        server.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while not done():
            assert time.monotonic() < end
            time.sleep(0.05)

    def node() -> str:
        return server.get("healthz").headers["X-Modhaven-Backend"]

    reload(good.replace("backend1", "renamed"), lambda: node() == "renamed")
    said = server.folder / "stderr"
    reload("wrong: 1", lambda: "wrong is not a configuration key" in said.read_text())
    assert node() == "renamed"


def test_what_goes_over_the_wire(serve: Servers, fake: FakeUpstream) -> None:
    server = serve(fake.url, sumdb="off")
    for name, body in ((f"{BASE}.info", INFO), (f"{BASE}.mod", MOD), (f"{BASE}.zip", ZIP)):
        fake.script(name, Reply(body=body))
        assert server.get(name).content == body
    head = requests.head(f"{server.url}/{BASE}.zip", timeout=10)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(ZIP)))
    assert head.headers["X-Modhaven-Source"] == "store"
    missing = server.get("example.com/none/@v/list")
    assert missing.status_code == 404
    assert missing.text.startswith("not found: example.com/none/@v/list")
    assert server.get("example.com/%2e%2e/@v/list").status_code == 400
    assert requests.post(f"{server.url}/{BASE}.zip", timeout=10).status_code == 405
    fake.script("github.com/!a/x/@v/list", Reply(body=b"v1.0.0\n"))
    assert server.get("github.com/%21a/x/@v/list").text == "v1.0.0\n"
    assert server.get("github.com/!a/x/@v/list").text == "v1.0.0\n"
    assert fake.counts["github.com/!a/x/@v/list"] == 1
    assert server.get("healthz").text == "ok\n"
    (server.folder / "drain").touch()
    assert server.get("readyz").status_code == 503


def test_the_go_command_shows_which_mirrors_failed(
    tmp_path: Path, serve: Servers, go_server: GoTestServer
) -> None:
    server = serve(f"{go_server.root}/503")
    client = Client(tmp_path / "client", server.url)
    said = client.go("mod", "download", "rsc.io/quote@v1.5.2", ok=False)
    assert "no upstream could answer" in said
    assert "503" in said
    assert "request id: " in said
    missing = serve(go_server.root)
    client = Client(tmp_path / "client2", missing.url)
    assert "404" in client.go("mod", "download", "rsc.io/quote@v9.9.9", ok=False)


def test_the_database_is_mirrored_for_clients_while_it_is_down(
    tmp_path: Path, serve: Servers, go_server: GoTestServer
) -> None:
    server = serve(go_server.root, freshness={"mutable_seconds": 0})
    assert server.get(f"sumdb/{SUMDB_NAME}/latest").text.startswith("go.sum database tree\n")
    Client(tmp_path / "first", server.url).build_and_run()
    go_server.stop()
    latest = server.get(f"sumdb/{SUMDB_NAME}/latest")
    assert (latest.status_code, "X-Modhaven-Stale" in latest.headers) == (200, True)
    Client(tmp_path / "second", server.url).build_and_run()
