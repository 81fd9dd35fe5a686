"""A real git host on loopback: repositories behind git http-backend, with ``?go-get=1`` pages."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.server
import os
import subprocess
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from pathlib import Path

USER, PASSWORD = "robot", "s3cret-t0ken"
# Nothing of the machine's own configuration; commits that are the same in every run.
GIT_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@corp.example",
    "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@corp.example",
    "GIT_AUTHOR_DATE": "2024-05-01T12:00:00Z", "GIT_COMMITTER_DATE": "2024-05-01T12:00:00Z",
}  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=GIT_ENV, text=True, check=True, timeout=30,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout.strip()


class Repository:
    """A bare repository that is written to by commits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._work = folder.with_name(f"{folder.name}.work")
        self._work.mkdir(parents=True)
        git(self._work, "init", "-q", "-b", "main")
        git(self._work.parent, "clone", "-q", "--bare", str(self._work), str(folder))
        git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")

    def commit(self, files: Mapping[str, str | bytes], *tags: str, branch: str = "main") -> str:
        """Write ``files``, commit, tag; return the commit's hash."""
        if git(self._work, "branch", "--show-current") != branch:
            git(self._work, "checkout", "-q", "-B", branch)
        for name, text in files.items():
            path = self._work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        git(self._work, "add", "-A")
        git(self._work, "commit", "-q", "--allow-empty", "-m", "change")
        for tag in tags:
            git(self._work, "tag", tag)
        git(self._work, "push", "-q", "--tags", str(self.folder), f"HEAD:refs/heads/{branch}")
        return git(self._work, "rev-parse", "HEAD")


class Origin:
    """An HTTP server for the repositories below ``root``; it counts what git asks for.

    ``imports`` maps import path prefixes to what the go-import tag says behind them; ``private``
    are paths' beginnings that demand USER and PASSWORD; ``hang`` those that never get an answer.
    """

    def __init__(self, root: Path, tls: ssl.SSLContext | None = None) -> None:
        self.root = root
        self.imports: dict[str, str] = {}
        self.private: set[str] = set()
        self.hang: set[str] = set()
        self.statuses: dict[str, int] = {}
        self._once: dict[str, int] = {}
        # ("GET", path), ("ls-refs", path), ("fetch", path), in order.
        self.asked: list[tuple[str, str]] = []
        self.authorized: list[str] = []
        self.sent: dict[str, int] = {}
        self._released = threading.Event()
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                origin._answer(self, b"")

            def do_POST(self) -> None:
                origin._answer(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Say nothing of clients that were killed."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def repository(self, path: str) -> Repository:
        """Make the repository that ``https://host/<path>`` is."""
        return Repository(self.root / path)

    def fail_once(self, start: str, status: int) -> None:
        """Answer the next request below ``start`` with ``status``."""
        self._once[start] = status

    def count(self, what: str, path: str = "") -> int:
        return sum(kind == what and path in at for kind, at in self.asked)

    def _answer(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        parts = urlsplit(request.path)
        path = parts.path.lstrip("/")
        host = request.headers.get("Host", "").partition(":")[0]
        plain = gzip.decompress(body) if request.headers.get("Content-Encoding") else body
        kind = "GET"
        if request.command == "POST":
            kind = "ls-refs" if b"command=ls-refs" in plain else "fetch"
        self.asked.append((kind, f"{host}/{path}"))
        if any(f"{host}/{path}".startswith(start) for start in self.hang):
            self._released.wait(60)
            request.close_connection = True
            return
        for statuses in (self._once, self.statuses):
            for start in [start for start in statuses if f"{host}/{path}".startswith(start)]:
                status = statuses.pop(start) if statuses is self._once else statuses[start]
                self._reply(request, status, b"no\n")
                return
        if "Authorization" in request.headers:
            self.authorized.append(f"{host}/{path}")
        if any(f"{host}/{path}".startswith(start) for start in self.private):
            wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if request.headers.get("Authorization") != f"Basic {wanted}":
                self._reply(request, 401, b"who are you?\n", 'WWW-Authenticate: Basic realm="git"')
                return
        if parts.query == "go-get=1":
            self._go_get(request, f"{host}/{path}")
        else:
            self._backend(request, path, parts.query, body)

    def _go_get(self, request: http.server.BaseHTTPRequestHandler, asked: str) -> None:
        for prefix, said in self.imports.items():
            if asked.rstrip("/") == prefix or asked.startswith(f"{prefix}/"):
                page = (
                    f'<html><head><meta name="go-import" content="{prefix} {said}"></head></html>'
                )
                self._reply(request, 200, page.encode(), "Content-Type: text/html")
                return
        self._reply(request, 404, b"no such page\n")

    def _backend(
        self, request: http.server.BaseHTTPRequestHandler, path: str, query: str, body: bytes
    ) -> None:
        """Run git's own CGI program (git-http-backend(1))."""
        done = subprocess.run(
            ["git", "http-backend"], input=body, stdout=subprocess.PIPE, timeout=60, check=True,
            stderr=subprocess.DEVNULL,
            env={
                **GIT_ENV, "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": f"/{path}", "QUERY_STRING": query,
                "REQUEST_METHOD": request.command,
                "CONTENT_TYPE": request.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            },
        )  # fmt: skip
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = head.decode().split("\r\n")
        status = 200
        if headers and headers[0].startswith("Status:"):
            status = int(headers.pop(0).split()[1])
        self.sent[path] = self.sent.get(path, 0) + len(content)
        self._reply(request, status, content, *headers)

    def _reply(
        self, request: http.server.BaseHTTPRequestHandler, status: int, body: bytes, *headers: str
    ) -> None:
        with contextlib.suppress(OSError):
            request.send_response(status)
            for header in filter(None, headers):
                name, _, value = header.partition(":")
                request.send_header(name, value.strip())
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
