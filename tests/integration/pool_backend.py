"""A backend as the pool manager sees it: ready or not, counting what it works on. A process."""

from __future__ import annotations

import http.server
import ssl
import sys
import threading
import time
from pathlib import Path

_guard = threading.Lock()
_active = _busy = 0


def count(connections: int, requests: int) -> None:
    """Change how many connections there are and how many of them have a request."""
    global _active, _busy  # noqa: PLW0603 - the process is one backend
    with _guard:
        _active += connections
        _busy += requests


class Handler(http.server.BaseHTTPRequestHandler):
    """Not ready while the file ``unready`` is there, too busy for /work while ``busy`` is.

    /slow/SECONDS takes that long.
    """

    protocol_version = "HTTP/1.1"
    folder = Path()

    def handle(self) -> None:
        count(1, 0)
        try:
            super().handle()
        finally:
            count(-1, 0)

    def do_GET(self) -> None:
        count(0, 1)
        try:
            self._answer()
        finally:
            count(0, -1)

    def _answer(self) -> None:
        unready = self.folder / "unready"
        if self.path == "/readyz" and unready.exists():
            self._send(503, unready.read_text())
        elif self.path == "/-/status":
            with _guard:
                text = f"Active connections: {_active} \nWaiting: {_active - _busy} \n"
            self._send(200, text)
        elif (self.folder / "busy").exists() and self.path.startswith("/work"):
            self._send(503, "too busy\n")
        elif self.path.startswith("/slow/"):
            time.sleep(float(self.path.removeprefix("/slow/")))
            self._send(200, f"{self.folder.name}\n")
        else:
            self._send(200, f"{self.folder.name}\n")

    def _send(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


class Server(http.server.ThreadingHTTPServer):
    """Says nothing of clients that leave."""

    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        pass


def main(folder: str, port: str, pki: str = "") -> None:
    """Serve ``folder`` on ``port``; over mutual TLS with the files of the folder ``pki``."""
    Handler.folder = Path(folder)
    server = Server(("127.0.0.1", int(port)), Handler)
    if pki:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{pki}/host.crt", f"{pki}/host.key")
        context.load_verify_locations(f"{pki}/ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    server.serve_forever(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
