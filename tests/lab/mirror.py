"""A public Go module mirror of the lab: the fault front before the Go team's test module server.

Serves HTTPS on one address under several names (SNI and Host tell them apart) and passes requests
on to the local test server: ``https://goproxy.cn/PATH`` becomes ``/mod/PATH``; the checksum
database's own name and path, ``https://localhost.localdev/sumdb/…``, ``/mod/sumdb-direct/…``.
Faults are switched over a plain HTTP control API:

    GET /faults              the faults that are on
    PUT /faults/NAME         {"kind": "delay", "seconds": 3, "match": "zip$", "count": 1}
    DELETE /faults[/NAME]    one off, or all off
    GET /requests[/NAME]     what was asked since the last DELETE: {"NAME": [{path, status, …}]}
    DELETE /requests

``down`` closes the listening socket when every name of the address is down (connections are
refused); a name that shares its address with a healthy one is reset as soon as its ClientHello
has told its name, since one port cannot be refused for one name only. Nothing outlives a restart.

Standard library only, for Debian 12's python3. Usage: ``python3 -m tests.lab.mirror FILE`` where
FILE is JSON: ``{"names": […], "listen": ["0.0.0.0", 443], "control": ["0.0.0.0", 8099],
"certificate": FILE, "key": FILE, "modules": ["127.0.0.1", 8080],
"database": "localhost.localdev"}``.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab.mirror_faults import Fault, wrong_bytes
from tests.lab.mirror_listener import IDLE_SECONDS, Mirror, Settings

if TYPE_CHECKING:
    import ssl


class Handler(BaseHTTPRequestHandler):
    """The requests of one connection."""

    protocol_version = "HTTP/1.1"
    server_version = "modhaven-lab-mirror"
    sys_version = ""
    timeout = IDLE_SECONDS

    def __init__(self, connection: ssl.SSLSocket, sni: str, mirror: Mirror) -> None:
        self.sni = sni
        self.mirror = mirror
        super().__init__(connection, connection.getpeername(), None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer from the test server, damaged as the fault says."""
        name = self.sni or self.headers.get("Host", "").partition(":")[0].lower()
        fault = self.mirror.faults.on_request(name, self.path)
        kind = fault.kind if fault else ""
        if fault and kind in ("down", "blackhole"):
            self.mirror.note(name, self.path, 0, kind)
            if kind == "blackhole":
                self.mirror.hold(name)
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        if fault and kind == "delay":
            time.sleep(fault.seconds)
        if fault and kind == "status":
            headers, body = {"Content-Type": "text/plain"}, b"the lab's fault switch says so\n"
            status = fault.code
        else:
            status, headers, body = self._fetch(name)
        self.mirror.note(name, self.path, status, kind)
        self._answer(status, headers, wrong_bytes(body) if kind == "wrong_bytes" else body, fault)

    def do_HEAD(self) -> None:
        """Answer as GET does, without the body."""
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing: the control API has the log."""

    def _fetch(self, name: str) -> tuple[int, dict[str, str], bytes]:
        path = f"/mod{self.path}"
        if name == self.mirror.settings.database and self.path.startswith("/sumdb/"):
            path = "/mod/sumdb-direct" + self.path.removeprefix("/sumdb")
        upstream = http.client.HTTPConnection(*self.mirror.settings.modules, timeout=30)
        try:
            upstream.request("GET", path)
            answer = upstream.getresponse()
            headers = {"Content-Type": answer.getheader("Content-Type", "application/octet-stream")}
            location = answer.getheader("Location")
            if location:
                headers["Location"] = location.removeprefix("/mod")
            return answer.status, headers, answer.read()
        except (OSError, http.client.HTTPException) as error:
            text = f"the lab's test module server did not answer: {error}\n"
            return 502, {"Content-Type": "text/plain"}, text.encode()
        finally:
            upstream.close()

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        if fault and fault.kind == "truncate":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Control(BaseHTTPRequestHandler):
    """The control API; see the module's text."""

    mirror: Mirror
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Show faults or requests."""
        what, name = self._target()
        if what == "faults":
            self._send(200, self.mirror.faults.snapshot())
        elif what == "requests":
            self._send(200, self.mirror.requests(name))
        else:
            self._send(404, {"error": "GET /faults or /requests"})

    def do_PUT(self) -> None:
        """Switch a fault on."""
        what, name = self._target()
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if what != "faults" or name not in self.mirror.faults.names:
            known = ", ".join(self.mirror.faults.names)
            self._send(404, {"error": f"PUT /faults/NAME, with one of the names {known}"})
            return
        try:
            self.mirror.faults.put(name, Fault.from_json(json.loads(body or b"null")))
        except ValueError as error:
            self._send(400, {"error": str(error)})
            return
        self.mirror.apply()
        self._send(200, self.mirror.faults.snapshot())

    def do_DELETE(self) -> None:
        """Switch faults off, or forget the requests."""
        what, name = self._target()
        if what == "requests":
            self.mirror.log.clear()
        elif what == "faults":
            for known in self.mirror.faults.names if name == "" else (name,):
                self.mirror.faults.remove(known)
            self.mirror.apply()
        self._send(200 if what in ("faults", "requests") else 404, {})

    def log_message(self, *_: Any) -> None:
        """Say nothing: tests switch faults all the time."""

    def _target(self) -> tuple[str, str]:
        what, _, name = self.path.strip("/").partition("/")
        return what, name

    def _send(self, status: int, data: object) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def control_server(mirror: Mirror) -> ThreadingHTTPServer:
    """Make the control API's server (not yet serving) for a mirror."""
    handler = type("BoundControl", (Control,), {"mirror": mirror})
    return ThreadingHTTPServer(mirror.settings.control, handler)


def main() -> None:
    """Serve for ever with the settings file named on the command line."""
    mirror = Mirror(Settings.read(Path(sys.argv[1])), Handler)
    mirror.apply()
    control_server(mirror).serve_forever()


if __name__ == "__main__":
    main()
