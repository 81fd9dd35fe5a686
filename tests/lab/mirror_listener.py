"""The listening side of a lab mirror: settings, the port that faults close, the log of requests.

What is decided before TLS is decided here: a name that is ``down`` or a ``blackhole`` must look so
to a client that has not sent a request yet, so the name is read from the ClientHello by peeking.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.mirror_faults import FaultTable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLACKHOLE_SECONDS = (
    600.0  # a held connection is let go at last, or a long test would run out of threads
)
IDLE_SECONDS = 75.0
_LOG_LENGTH = 50_000
_HELLO_BYTES = 16_384 + 5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a mirror listens and what it stands before; addresses are (host, port)."""

    names: tuple[str, ...]
    listen: tuple[str, int]
    control: tuple[str, int]
    modules: tuple[str, int]
    certificate: str
    key: str
    database: str = "localhost.localdev"

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read the JSON file; raises OSError, ValueError, TypeError for a bad one."""
        data = json.loads(path.read_text())
        pairs = {
            key: (str(data[key][0]), int(data[key][1])) for key in ("listen", "control", "modules")
        }
        return cls(**{**data, **pairs, "names": tuple(data["names"])})


def server_name(hello: bytes) -> str | None:
    """Give the SNI host name of a TLS ClientHello record (RFC 8446 4.1.2, RFC 6066 3), or None."""
    try:
        if hello[0] != 0x16 or hello[5] != 1:
            return None
        at = 5 + 4 + 2 + 32
        at += 1 + hello[at]
        at += 2 + struct.unpack_from("!H", hello, at)[0]
        at += 1 + hello[at]
        end = at + 2 + struct.unpack_from("!H", hello, at)[0]
        at += 2
        while at + 4 <= end:
            kind, length = struct.unpack_from("!HH", hello, at)
            at += 4
            if kind == 0:
                (size,) = struct.unpack_from("!H", hello, at + 3)
                return hello[at + 5 : at + 5 + size].decode("ascii").lower()
            at += length
    except (IndexError, struct.error, UnicodeDecodeError):
        return None
    return None


class Mirror:
    """The listener, its faults, and the log of requests.

    ``serve(connection, name, mirror)`` answers one connection's requests until it ends.
    """

    def __init__(
        self, settings: Settings, serve: Callable[[ssl.SSLSocket, str, Mirror], object]
    ) -> None:
        self.settings = settings
        self.serve = serve
        self.faults = FaultTable(settings.names)
        self.log: deque[dict[str, object]] = deque(maxlen=_LOG_LENGTH)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(settings.certificate, settings.key)
        self.context.set_alpn_protocols(["http/1.1"])
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._changed = threading.Condition()

    def close(self) -> None:
        """Stop listening and let go of held connections; connections being served go on."""
        with self._lock:
            self._close()
        for name in self.settings.names:
            self.faults.remove(name)
        with self._changed:
            self._changed.notify_all()

    def apply(self) -> None:
        """Open or close the listening socket as the faults demand, and wake held connections."""
        with self._lock:
            closed = self.faults.refused()
            if closed:
                self._close()
            elif not closed and self._listener is None:
                self._listener = socket.create_server(
                    self.settings.listen, backlog=512, reuse_port=False
                )
                threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        with self._changed:
            self._changed.notify_all()

    def address(self) -> tuple[str, int]:
        """Give the address listened on; raises ConnectionRefusedError while the port is closed."""
        with self._lock:
            if self._listener is None:
                raise ConnectionRefusedError
            host, port = self._listener.getsockname()[:2]
            return host, port

    def note(self, name: str, path: str, status: int, fault: str = "") -> None:
        """Remember a request (status 0: it got no answer; path "": it came no further than TCP)."""
        self.log.append(
            {"name": name, "path": path, "status": status, "fault": fault, "time": time.time()}
        )

    def requests(self, name: str = "") -> dict[str, list[dict[str, object]]]:
        """Give the remembered requests by name."""
        found: dict[str, list[dict[str, object]]] = {
            known: [] for known in self.settings.names if name in ("", known)
        }
        for entry in list(self.log):
            found.get(str(entry["name"]), []).append(entry)
        return found

    def hold(self, name: str) -> None:
        """Block for as long as the name stays a black hole."""
        deadline = time.monotonic() + BLACKHOLE_SECONDS
        with self._changed:
            self._changed.wait_for(
                lambda: self.faults.snapshot().get(name, {}).get("kind") != "blackhole",
                timeout=max(0.0, deadline - time.monotonic()),
            )

    def _close(self) -> None:
        if self._listener is not None:
            # shutdown wakes the thread in accept(); close alone would leave the port open.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                if listener.fileno() == -1 or self._listener is not listener:
                    return
                time.sleep(0.05)  # out of descriptors, or a client that left: go on
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(IDLE_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = server_name(_peek_hello(connection)) or ""
            fault = self.faults.on_connection(name)
            if fault is not None:
                self.note(name, "", 0, fault.kind)
                if fault.kind == "blackhole":
                    self.hold(name)
                reset(connection)
                return
            with self.context.wrap_socket(connection, server_side=True) as secure:
                self.serve(secure, name, self)


def _peek_hello(connection: socket.socket) -> bytes:
    """Look at the first TLS record without taking it (it can span several segments)."""
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        data = connection.recv(_HELLO_BYTES, socket.MSG_PEEK)
        if not data or data[0] != 0x16:
            return b""
        if len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[3:5]):
            return data
        time.sleep(0.002)
    return b""


def reset(connection: socket.socket) -> None:
    """Close with RST, as a host that has no such port any more does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
