"""What several tests need: a scripted upstream, and the Go team's test proxy."""

from __future__ import annotations

import contextlib
import http.server
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

# How quick a busy machine is says nothing about what is tested.
hypothesis.settings.register_profile(
    "modhaven", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("modhaven")

ROOT = Path(__file__).parents[1]
TEST_SUMDB = "localhost.localdev/sumdb+00000c67+AcTrnkbUA+TU4heY3hkjiSES/DSQniBqIeQ/YppAUtK6"
_PORTS = 12_000
_given: set[int] = set()


@dataclass
class Reply:
    """What the scripted upstream answers; ``cut`` bytes of the body are withheld.

    With ``after`` it answers when that is set.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    delay_seconds: float = 0.0
    hang: bool = False
    after: threading.Event | None = None


class FakeUpstream:
    """An HTTP server on loopback that answers by path, and counts."""

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.headers: list[tuple[str, dict[str, str]]] = []
        self.default = Reply(status=404, body=b"not here\n")
        self.counts: Counter[str] = Counter()
        self.released = threading.Event()
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.lstrip("/")
                fake.counts[path] += 1
                fake.headers.append((path, dict(self.headers)))
                script = fake.replies.get(path, [fake.default])
                reply = script.pop(0) if len(script) > 1 else script[0]
                if reply.hang:
                    fake.released.wait(30)
                    self.close_connection = True
                    return
                time.sleep(reply.delay_seconds)
                if reply.after is not None:
                    reply.after.wait(30)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if "Transfer-Encoding" in reply.headers:
                    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(reply.body), reply.body)
                else:
                    self.send_header("Content-Length", str(len(reply.body)))
                    body = reply.body
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[: len(body) - reply.cut])
                self.close_connection = reply.cut > 0

            do_HEAD = do_GET  # noqa: N815 - http.server's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: object, client_address: object) -> None:
                """Say nothing of clients that leave, or refuse our certificate."""

        self._server = Server(("127.0.0.1", port), Handler)
        if tls is not None:
            # In the handler's thread: a handshake must not hold up the others.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.name = f"127.0.0.1:{self._server.server_port}"
        self.url = f"{'http' if tls is None else 'https'}://{self.name}"

    def script(self, path: str, *replies: Reply) -> None:
        """Answer ``path`` with these in order, the last one for ever."""
        self.replies[path] = list(replies)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    upstream = FakeUpstream()
    yield upstream
    upstream.close()


@pytest.fixture
def fake2() -> Iterator[FakeUpstream]:
    upstream = FakeUpstream()
    yield upstream
    upstream.close()


@pytest.fixture
def refused_url() -> Iterator[str]:
    """An address where nobody listens: bound, so that nobody else gets it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def free_port() -> int:
    """Give a port of loopback that is free, and that no connection gets for its own end meanwhile.

    Those come from the range of which the kernel says where it begins.
    """
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    first_of_connections = int(limits[0])
    while True:
        port = first_of_connections - 1 - secrets.randbelow(_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port


def wait_for_port(
    port: int, process: subprocess.Popen[bytes], seconds: float = 20, host: str = "127.0.0.1"
) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"process ended with status {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1) as made:
            # The kernel may have given our own end that very port: a connection with itself.
            if made.getsockname() != made.getpeername():
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port} after {seconds} s")


class GoTestServer:
    """The Go team's own test modules with their checksum database, in a process of its own."""

    def __init__(self, binary: str, folder: str, port: int) -> None:
        self._command = [binary, f"-proxy=127.0.0.1:{port}"]
        self._folder = folder
        self._port = port
        self.root = f"http://127.0.0.1:{port}/mod"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self._port, self._process)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def go_test_binary() -> tuple[str, str]:
    built = subprocess.run(
        [ROOT / "tests" / "lab" / "go_test_server.sh"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHON": sys.executable},
    )
    binary, folder = built.stdout.split()
    return binary, folder


@pytest.fixture
def go_server(go_test_binary: tuple[str, str]) -> Iterator[GoTestServer]:
    server = GoTestServer(*go_test_binary, free_port())
    server.start()
    yield server
    server.stop()
