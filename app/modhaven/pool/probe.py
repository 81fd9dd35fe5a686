"""Asks one backend, the way the edge's nginx does, whether it is ready and how busy it is.

A few times a second for each of many backends: hence the standard library's plain client, which
takes a third of the time that a comfortable one takes.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modhaven.pool.nginx import in_flight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modhaven.pool.settings import TLS, Server

_MOST_BYTES = 2000
_MOST_WORDS = 120
# How busy it is changes nothing by itself: it is asked less often than whether it is ready.
_BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One probe's outcome; ``error`` is empty when the backend is ready, else a few words.

    ``in_flight`` is the requests it worked on at ``in_flight_at`` (seconds since the epoch, of the
    moment it was asked); None where it did not say. ``address`` is where it was found.
    """

    error: str = ""
    in_flight: int | None = None
    in_flight_at: float = 0.0
    address: str = ""


class _SilentError(Exception):
    """It gave no answer; the text says why in a few words."""


class Prober:
    """The connection to one backend; it stays open from probe to probe."""

    def __init__(
        self, server: Server, tls: TLS | None, timeout_seconds: float, address: str = ""
    ) -> None:
        """Bind a backend to its TLS and time bound; nothing is opened yet.

        ``address`` is where it answered earlier.
        """
        self._seconds = timeout_seconds
        self._connection = _Connection(server, tls, address)
        self._busy: int | None = None
        self._busy_at = 0.0
        self._busy_due = -float("inf")

    def ask(self) -> Answer:
        """Ask, within the time bound as far as sockets keep to it."""
        end = time.monotonic() + self._seconds
        error = ""
        if self._connection.moved:
            self.close()
        try:
            status, body = self._get("/readyz", end)
            if status != 200:
                error = f"{status} {_first_line(body)}".strip()
            if time.monotonic() >= self._busy_due:
                self._busy_at = time.time()
                status, body = self._get("/-/status", end)
                self._busy = in_flight(body) if status == 200 else None
                self._busy_due = time.monotonic() + _BUSY_SECONDS
        except _SilentError as silence:
            error = str(silence)
            self._busy, self._busy_at, self._busy_due = None, time.time(), -float("inf")
        return Answer(
            error=error,
            in_flight=self._busy,
            in_flight_at=self._busy_at,
            address=self._connection.address,
        )

    def lead_to(self, addresses: Sequence[str]) -> None:
        """Say where the backend's name leads by now; in any thread, for the next probe."""
        self._connection.named = addresses

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _get(self, path: str, end: float) -> tuple[int, bytes]:
        kept = self._connection.sock is not None
        try:
            try:
                return self._get_once(path, end)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # That it has closed an idle connection says nothing about it.
                self.close()
                if not kept:
                    raise
                return self._get_once(path, end)
        except TimeoutError:
            self.close()
            raise _SilentError(f"no answer within {self._seconds:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _SilentError(_words(error)) from None

    def _get_once(self, path: str, end: float) -> tuple[int, bytes]:
        connection = self._connection
        connection.bound(end)
        connection.request("GET", path, headers={"Accept": "*/*"})
        connection.bound(end)
        answer = connection.getresponse()
        body = answer.read(_MOST_BYTES)
        if not answer.isclosed() and answer.read(1):
            # Whatever it is, it is no page of ours: its rest is not waited for.
            self.close()
        return answer.status, body


class _Connection(http.client.HTTPConnection):
    """Over TLS where the pool has it; the certificate is for the pool's name, not the address.

    A backend known by a name is found without it where it answered last, at ``address``: neither
    it nor an edge is lost with the DNS. ``named`` is where its name leads by now, as far as known.
    """

    def __init__(self, server: Server, tls: TLS | None, address: str) -> None:
        super().__init__(server.address, server.port)
        self._tls = tls
        self.address = address
        self.named: Sequence[str] = ()

    @property
    def moved(self) -> bool:
        """Whether its name leads elsewhere by now."""
        return bool(self.named) and self.address not in self.named

    def bound(self, end: float) -> None:
        """Let what follows take until ``end`` (monotonic). TimeoutError when that has passed."""
        self.timeout = end - time.monotonic()
        if self.timeout <= 0:
            raise TimeoutError
        if self.sock is not None:
            self.sock.settimeout(self.timeout)

    def connect(self) -> None:
        plain = self._open()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = plain
        if self._tls is not None:
            # Read each time: certificates are renewed.
            context = ssl.create_default_context(cafile=self._tls.ca_file)
            context.load_cert_chain(self._tls.certificate_file, self._tls.key_file)
            self.sock = context.wrap_socket(plain, server_hostname=self._tls.name)
        self.address = str(self.sock.getpeername()[0])

    def _open(self) -> socket.socket:
        if not self.address:
            return socket.create_connection((self.host, self.port), self.timeout)
        # Where it was, and where the name leads now: after the former where that still is one.
        places = [*self.named, self.address] if self.moved else [self.address, *self.named]
        *others, last = dict.fromkeys(places)
        for place in others:
            with contextlib.suppress(OSError):
                return socket.create_connection((place, self.port), self.timeout)
        return socket.create_connection((last, self.port), self.timeout)


def _first_line(body: bytes) -> str:
    text = next(iter(body.decode("utf-8", "replace").splitlines()), "")
    # It goes to terminals.
    return "".join(filter(str.isprintable, text))[:_MOST_WORDS].strip()


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'no reason given').lower().replace('_', ' ')}"
    if isinstance(error, socket.gaierror):
        return "its address cannot be resolved"
    if isinstance(error, OSError) and error.strerror:
        about = f": {error.filename}" if error.filename else ""
        return f"{error.strerror.lower()}{about}"
    if isinstance(error, http.client.RemoteDisconnected):
        return "closed the connection without an answer"
    return f"failed: {type(error).__name__}"
