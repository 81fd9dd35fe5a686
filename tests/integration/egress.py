"""Egress proxies on loopback: HTTP (forwarding and CONNECT) and SOCKS5 (RFC 1928, 1929)."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import struct
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

USER, PASSWORD = "egress", "pr0xypass"
# Names that only a proxy can resolve.
NAMES = {"mirror.corp.invalid": "127.0.0.1"}


def relay(one: socket.socket, other: socket.socket) -> None:
    def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=copy, args=(other, one))
    back.start()
    copy(one, other)
    back.join()


def exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


class Proxy:
    """A proxy that demands USER and PASSWORD, and remembers whom it was asked for.

    ``routes`` has the ports on loopback that hosts such as ``git.corp.example:443`` are reached at.
    """

    def __init__(self, scheme: str, routes: Mapping[str, int] | None = None) -> None:
        self.asked: list[str] = []
        self.routes = dict(routes or {})
        talk: Callable[[socket.socket], None] = self._http if scheme == "http" else self._socks

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    talk(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"{scheme}://{USER}:{PASSWORD}@127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _reach(self, host: str, port: int) -> socket.socket:
        self.asked.append(f"{host}:{port}")
        routed = self.routes.get(f"{host}:{port}")
        address = (NAMES.get(host, host), port) if routed is None else ("127.0.0.1", routed)
        return socket.create_connection(address, 10)

    def _http(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1 << 16)
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode())
        if b"basic " + pair.lower() not in head.lower():
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        method, target, _ = head.split(b" ", 2)
        if method == b"CONNECT":
            host, _, port = target.decode().rpartition(":")
            with self._reach(host, int(port)) as server:
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                relay(client, server)
            return
        parts = urlsplit(target.decode())
        with self._reach(parts.hostname or "", parts.port or 80) as server:
            server.sendall(head.replace(target, parts.path.encode(), 1))
            relay(client, server)

    def _socks(self, client: socket.socket) -> None:
        _, count = exactly(client, 2)
        exactly(client, count)
        client.sendall(b"\x05\x02")
        user = exactly(client, exactly(client, 2)[1])
        password = exactly(client, exactly(client, 1)[0])
        good = (user.decode(), password.decode()) == (USER, PASSWORD)
        client.sendall(b"\x01\x00" if good else b"\x01\x01")
        if not good:
            return
        kind = exactly(client, 4)[3]
        if kind == 1:
            host = socket.inet_ntoa(exactly(client, 4))
        else:
            host = exactly(client, exactly(client, 1)[0]).decode()
        (port,) = struct.unpack("!H", exactly(client, 2))
        with self._reach(host, port) as server:
            client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
            relay(client, server)
