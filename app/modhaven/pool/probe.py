"""Asks one backend, the way the edge's nginx does, whether it is ready and how busy it is.

A few times a second for each of many backends: hence the standard library's plain client, which
takes a third of the time that a comfortable one takes.
"""

from __future__ import annotations

import http.client
import math
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modhaven.pool import names
from modhaven.pool.connection import Connection
from modhaven.pool.nginx import in_flight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modhaven.pool.settings import TLS, Server

_MOST_BYTES = 2000
_MOST_WORDS = 120
# How busy it is changes nothing by itself: it is asked less often than whether it is ready.
_BUSY_SECONDS = 1.0
# A backend may answer on old connections and take no new ones, or not this certificate any more.
_CONNECTION_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One probe's outcome; ``error`` is empty when the backend is ready, else a few words.

    ``in_flight`` is the requests it worked on at ``in_flight_at`` (seconds since the epoch, of the
    moment it was asked); None where it did not say. ``address`` is where it was ready last.
    ``silent``: it gave no answer at all; ``refused``: nobody listens there.
    """

    error: str = ""
    in_flight: int | None = None
    in_flight_at: float = 0.0
    address: str = ""
    silent: bool = False
    refused: bool = False


class _SilentError(Exception):
    """It gave no answer; the text says why in a few words."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class Prober:
    """The connection to one backend; it stays open from probe to probe, for some seconds."""

    def __init__(
        self, server: Server, tls: TLS | None, timeout_seconds: float, address: str = ""
    ) -> None:
        """Bind a backend to its TLS and time bound; nothing is opened yet.

        ``address`` is where it was ready earlier.
        """
        self._server = server
        self._tls = tls
        self._seconds = timeout_seconds
        if not names.is_name(server.address):
            address = server.address
        self._connection = Connection(server, tls, address)
        self._named: Sequence[str] = ()
        self._busy: int | None = None
        self._busy_at = 0.0
        self._busy_due = -float("inf")

    def ask(self) -> Answer:
        """Ask, within the time bound as far as sockets keep to it."""
        end = time.monotonic() + self._seconds
        silence = None
        if time.monotonic() - self._connection.opened >= _CONNECTION_SECONDS:
            self._connection.close()
        try:
            error = self._why_not_ready(end)
            if self._connection.address and time.monotonic() >= self._busy_due:
                self._ask_how_busy(end)
        except _SilentError as caught:
            silence, error = caught, str(caught)
            self._busy, self._busy_at, self._busy_due = None, time.time(), -float("inf")
        return Answer(
            error=error,
            in_flight=self._busy,
            in_flight_at=self._busy_at,
            address=self._connection.address,
            silent=silence is not None,
            refused=silence is not None and silence.refused,
        )

    def lead_to(self, addresses: Sequence[str]) -> None:
        """Say where the backend's name leads by now; in any thread, for the next probe."""
        self._named = addresses

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask_how_busy(self, end: float) -> None:
        self._busy_at = time.time()
        try:
            status, body = self._get(self._connection, "/-/status", end)
            self._busy = in_flight(body) if status == 200 else None
        except _SilentError:
            self._busy = None
        self._busy_due = time.monotonic() + _BUSY_SECONDS

    def _why_not_ready(self, end: float) -> str:
        """Return why it is not ready, empty where it is. _SilentError."""
        here, places = self._connection.address, self._places()
        found: str | _SilentError = _SilentError("its address cannot be resolved")
        for number, place in enumerate(places):
            # One that swallows what it is sent must not take the others' time.
            now = time.monotonic()
            share = now + (end - now) / (len(places) - number)
            if place == here:
                self._connection.open_by = share
                found = self._readiness(self._connection, end)
                self._connection.open_by = math.inf
                if self._connection.reached:
                    break
            elif not (there := self._ask_elsewhere(place, share)):
                return ""
            elif not here:
                found = there
        if isinstance(found, _SilentError):
            raise found
        return found

    def _places(self) -> list[str]:
        """Return where it may be, in the order in which it is looked for there.

        One that the inventory has by a name is asked without it where it was ready last: neither it
        nor an edge is lost with the DNS. Where its name leads elsewhere by now, that comes first;
        else only when nobody can be reached where it was.
        """
        here, named = self._connection.address, self._named
        if not here:
            return list(named or names.addresses(self._server))
        others = [place for place in named if place != here]
        return [*others, here] if named and here not in named else [here, *others]

    def _ask_elsewhere(self, place: str, end: float) -> str | _SilentError:
        """Ask at another place. Who is ready there is the backend, nobody else: a DNS may be wrong.

        Returns what _readiness returns.
        """
        fresh = Connection(self._server, self._tls, place)
        found = self._readiness(fresh, end)
        if found:
            fresh.close()
        else:
            self.close()
            self._connection, self._busy_due = fresh, -float("inf")
        return found

    def _readiness(self, connection: Connection, end: float) -> str | _SilentError:
        """Return why it is not ready, empty where it is."""
        try:
            status, body = self._get(connection, "/readyz", end)
        except _SilentError as silence:
            return silence
        return "" if status == 200 else f"{status} {_first_line(body)}".strip()

    def _get(self, connection: Connection, path: str, end: float) -> tuple[int, bytes]:
        kept = connection.sock is not None
        try:
            try:
                return _get_once(connection, path, end)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # That it has closed an idle connection says nothing about it.
                connection.close()
                if not kept:
                    raise
                return _get_once(connection, path, end)
        except TimeoutError:
            connection.close()
            raise _SilentError(f"no answer within {self._seconds:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            refused = isinstance(error, ConnectionRefusedError)
            raise _SilentError(_words(error), refused=refused) from None


def _get_once(connection: Connection, path: str, end: float) -> tuple[int, bytes]:
    connection.bound(end)
    connection.request("GET", path, headers={"Accept": "*/*"})
    connection.bound(end)
    answer = connection.getresponse()
    body = answer.read(_MOST_BYTES)
    if not answer.isclosed() and answer.read(1):
        # Whatever it is, it is no page of ours: its rest is not waited for.
        connection.close()
    return answer.status, body


def _first_line(body: bytes) -> str:
    text = next(iter(body.decode("utf-8", "replace").splitlines()), "")
    # It goes to terminals.
    return "".join(filter(str.isprintable, text))[:_MOST_WORDS].strip()


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'no reason given').lower().replace('_', ' ')}"
    if isinstance(error, OSError) and error.strerror:
        about = f": {error.filename}" if error.filename else ""
        return f"{error.strerror.lower()}{about}"
    if isinstance(error, http.client.RemoteDisconnected):
        return "closed the connection without an answer"
    return f"failed: {type(error).__name__}"
