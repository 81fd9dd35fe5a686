"""The lab's mirror over real loopback sockets: every fault does what its name says."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import socket
import ssl
import subprocess
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.lab.mirror import Handler, control_server
from tests.lab.mirror_faults import Fault, FaultTable, wrong_bytes
from tests.lab.mirror_listener import Mirror, Settings, server_name

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("one.example", "two.example")


def a_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        target.writestr("m@v1.0.0/go.mod", "module m\n")
        target.writestr("m@v1.0.0/m.go", "package m // " + "words and words " * 50 + "\n")
    return out.getvalue()


BODIES = {
    "/mod/m/@v/v1.0.0.zip": a_zip(),
    "/mod/m/@v/v1.0.0.mod": b"module m\n",
    "/mod/m/@v/list": b"v1.0.0\n",
    "/mod/sumdb-direct/latest": b"direct",
}


class Modules(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = BODIES.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        pass


class Running:
    """A mirror under test, its control API, and a client for both."""

    def __init__(self, mirror: Mirror, control: tuple[str, int], ca: str) -> None:
        self.mirror = mirror
        self.port = mirror.address()[1]
        self._control = control
        self._context = ssl.create_default_context(cafile=ca)

    def control(self, method: str, path: str, data: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*self._control, timeout=5)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(data))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def fault(self, name: str, kind: str, **options: object) -> None:
        assert self.control("PUT", f"/faults/{name}", {"kind": kind, **options})[0] == 200

    def connect(self, name: str, timeout: float = 5.0) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(
            name, self.port, timeout=timeout, context=self._context
        )
        raw = socket.create_connection(("127.0.0.1", self.port), timeout)
        try:
            connection.sock = self._context.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise
        return connection

    def get(self, name: str, path: str, timeout: float = 5.0) -> tuple[int, bytes]:
        with contextlib.closing(self.connect(name, timeout)) as connection:
            connection.request("GET", path)
            with connection.getresponse() as answer:
                return answer.status, answer.read()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    script = Path(__file__).parents[1] / "lab" / "certificates.sh"
    subprocess.run([script, folder, "host", *NAMES], check=True, capture_output=True)
    return folder


@pytest.fixture
def running(certificate: Path) -> Iterator[Running]:
    modules = ThreadingHTTPServer(("127.0.0.1", 0), Modules)
    settings = Settings(
        names=NAMES,
        listen=("127.0.0.1", 0),
        control=("127.0.0.1", 0),
        modules=("127.0.0.1", modules.server_port),
        certificate=str(certificate / "host.crt"),
        key=str(certificate / "host.key"),
        database="two.example",
    )
    mirror = Mirror(settings, Handler)
    mirror.apply()
    # A port that was closed by a fault is opened again as the same one.
    mirror.settings = Settings(**{**vars(settings), "listen": mirror.address()})
    control = control_server(mirror)
    servers = (modules, control)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for thread in threads:
        thread.start()
    yield Running(mirror, ("127.0.0.1", control.server_port), str(certificate / "ca.crt"))
    mirror.close()
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        server.server_close()
        thread.join()


def test_names_and_database_reach_their_paths_on_the_test_server(running: Running) -> None:
    assert running.get("one.example", "/m/@v/list") == (200, b"v1.0.0\n")
    assert running.get("two.example", "/sumdb/latest") == (200, b"direct")
    assert running.get("one.example", "/nothing")[0] == 404


def test_a_connection_is_kept_alive_over_requests(running: Running) -> None:
    with contextlib.closing(running.connect("one.example")) as connection:
        for _ in range(3):
            connection.request("GET", "/m/@v/list")
            with connection.getresponse() as answer:
                assert answer.read() == b"v1.0.0\n"
            assert connection.sock is not None


def test_the_log_tells_what_was_asked_of_which_name(running: Running) -> None:
    running.get("one.example", "/m/@v/list")
    seen = running.control("GET", "/requests")[1]
    assert [(entry["path"], entry["status"]) for entry in seen["one.example"]] == [
        ("/m/@v/list", 200)
    ]
    assert seen["two.example"] == []
    running.control("DELETE", "/requests")
    assert running.control("GET", "/requests/one.example")[1] == {"one.example": []}


def test_down_resets_one_name_and_refuses_when_all_are_down(running: Running) -> None:
    running.fault("one.example", "down")
    with pytest.raises(ConnectionResetError):
        running.get("one.example", "/m/@v/list")
    assert running.get("two.example", "/m/@v/list")[0] == 200
    running.fault("two.example", "down")
    with pytest.raises(ConnectionRefusedError):
        running.get("two.example", "/m/@v/list")
    running.control("DELETE", "/faults")
    assert running.get("one.example", "/m/@v/list")[0] == 200


def test_a_kept_connection_dies_with_its_name(running: Running) -> None:
    with contextlib.closing(running.connect("one.example")) as connection:
        connection.request("GET", "/m/@v/list")
        with connection.getresponse() as answer:
            answer.read()
        running.fault("one.example", "down")
        connection.request("GET", "/m/@v/list")
        with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected, ssl.SSLError)):
            connection.getresponse()


def test_a_black_hole_accepts_and_never_answers(running: Running) -> None:
    running.fault("one.example", "blackhole")
    with pytest.raises(TimeoutError):
        running.get("one.example", "/m/@v/list", timeout=0.3)
    assert running.control("GET", "/requests")[1]["one.example"][0]["fault"] == "blackhole"
    running.control("DELETE", "/faults/one.example")
    assert running.get("one.example", "/m/@v/list")[0] == 200


def test_delay_and_status(running: Running) -> None:
    running.fault("one.example", "delay", seconds=0.3)
    begun = time.monotonic()
    assert running.get("one.example", "/m/@v/list")[0] == 200
    assert time.monotonic() - begun >= 0.3
    running.fault("one.example", "status", code=429)
    assert running.get("one.example", "/m/@v/list")[0] == 429


def test_a_truncated_body_ends_before_its_content_length(running: Running) -> None:
    running.fault("one.example", "truncate")
    with pytest.raises(http.client.IncompleteRead) as caught:
        running.get("one.example", "/m/@v/v1.0.0.zip")
    assert 0 < len(caught.value.partial) < len(BODIES["/mod/m/@v/v1.0.0.zip"])


def test_wrong_bytes_are_a_whole_answer_with_other_content(running: Running) -> None:
    running.fault("one.example", "wrong_bytes")
    good = BODIES["/mod/m/@v/v1.0.0.zip"]
    status, body = running.get("one.example", "/m/@v/v1.0.0.zip")
    assert (status, len(body)) == (200, len(good))
    with zipfile.ZipFile(io.BytesIO(good)) as was, zipfile.ZipFile(io.BytesIO(body)) as now:
        assert now.testzip() is None
        assert now.namelist() == was.namelist()
        assert [now.read(name) == was.read(name) for name in was.namelist()] == [True, False]


def test_a_fault_keeps_to_its_match_and_its_count(running: Running) -> None:
    running.fault("one.example", "status", code=500, match=r"\.zip$", count=2)
    assert running.get("one.example", "/m/@v/list")[0] == 200
    answers = [running.get("one.example", "/m/@v/v1.0.0.zip")[0] for _ in range(3)]
    assert answers == [500, 500, 200]


def test_bad_faults_are_refused_with_a_sentence(running: Running) -> None:
    for data, word in (
        ({"kind": "tired"}, "kind"),
        ({"kind": "delay", "seconds": -1}, "seconds"),
        ({"kind": "status", "code": 99}, "code"),
        ({"kind": "down", "match": "("}, "match"),
        ({"kind": "down", "count": 0}, "count"),
        ({"kind": "down", "colour": 1}, "colour"),
        ([], "object"),
    ):
        status, answer = running.control("PUT", "/faults/one.example", data)
        assert status == 400
        assert word in answer["error"]
    assert running.control("PUT", "/faults/other.example", {"kind": "down"})[0] == 404
    assert running.control("GET", "/faults")[1] == {}


def test_three_hundred_connections_at_once(running: Running) -> None:
    def one(_: int) -> str:
        return hashlib.sha256(running.get("one.example", "/m/@v/v1.0.0.zip", 30)[1]).hexdigest()

    with ThreadPoolExecutor(60) as pool:
        assert set(pool.map(one, range(300))) == {
            hashlib.sha256(BODIES["/mod/m/@v/v1.0.0.zip"]).hexdigest()
        }


@pytest.mark.parametrize(
    "body", [b"module m\n", b"v1.0.9\n", b'{"Version":"v1.0.0"}', b"\x00\xff", b"z", b"PK no zip"]
)
def test_wrong_bytes_change_content_and_never_the_length(body: bytes) -> None:
    assert wrong_bytes(body) != body
    assert len(wrong_bytes(body)) == len(body)


def test_garbage_has_no_server_name() -> None:
    for hello in (b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x00\x05\x01", b"\x16" * 300):
        assert server_name(hello) is None


def test_a_conditional_down_does_not_close_the_port() -> None:
    table = FaultTable(["one.example"])
    table.put("one.example", Fault(kind="down", match="zip"))
    assert not table.refused()
    table.put("one.example", Fault(kind="down"))
    assert table.refused()
