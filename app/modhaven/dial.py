"""Connecting within a bound: looking a name up counts, and so does every address it has.

The C library's resolver may block for half a minute when a name server is silent, and urllib3 gives
each address the whole timeout. Here both share one.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]

# What is waited for where urllib3 has no bound.
_DEFAULT_SECONDS = 60.0


class Resolver:
    """Looks names up in threads: one lookup of a name at a time, however many wait for it."""

    def __init__(self) -> None:
        """Start with none under way."""
        self._guard = threading.Lock()
        self._lookups: dict[tuple[str, int], Future[Any]] = {}

    def resolve(self, host: str, port: int, *, seconds: float) -> list[Address]:
        """Return the addresses of ``host``. Raises TimeoutError, socket.gaierror, UnicodeError."""
        key = (host, port)
        with self._guard:
            lookup = self._lookups.get(key)
            if lookup is None:
                lookup = self._lookups[key] = Future()
                threading.Thread(target=self._look_up, args=(key, lookup), daemon=True).start()
        addresses: list[Address] = lookup.result(timeout=seconds)
        return addresses

    def _look_up(self, key: tuple[str, int], lookup: Future[Any]) -> None:
        try:
            lookup.set_result(socket.getaddrinfo(*key, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            lookup.set_exception(error)
        finally:
            with self._guard:
                del self._lookups[key]


_resolver = Resolver()


def dial(
    host: str, port: int, *, seconds: float, options: Sequence[tuple[int, int, int | bytes]] = ()
) -> socket.socket:
    """Return a connection to ``host`` within ``seconds``; a silent address leaves time for others.

    Raises socket.gaierror, TimeoutError, OSError.
    """
    end = time.monotonic() + seconds
    addresses = _resolver.resolve(host.strip("[]"), port, seconds=seconds)
    failure: OSError = OSError("the name has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection = socket.socket(family, kind, protocol)
        try:
            for option in options:
                connection.setsockopt(*option)
            connection.settimeout(left / (len(addresses) - tried))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            connection.settimeout(seconds)
            return connection
    raise failure


def _connect(connection: urllib3.connection.HTTPConnection) -> socket.socket:
    """Do what urllib3's HTTPConnection._new_conn does, with its exceptions."""
    timeout = connection.timeout
    seconds = float(timeout) if isinstance(timeout, (int, float)) else _DEFAULT_SECONDS
    host, port = connection.host, connection.port or connection.default_port
    try:
        return dial(host, port, seconds=seconds, options=connection.socket_options or ())
    except socket.gaierror as error:
        raise urllib3.exceptions.NameResolutionError(host, connection, error) from error
    except TimeoutError as error:
        raise urllib3.exceptions.ConnectTimeoutError(
            connection, f"Connection to {host} timed out. (connect timeout={timeout})"
        ) from error
    except (OSError, UnicodeError) as error:
        raise urllib3.exceptions.NewConnectionError(
            connection, f"Failed to establish a new connection: {error}"
        ) from error


class _HTTPConnection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _HTTPPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


POOLS: dict[str, Any] = {"http": _HTTPPool, "https": _HTTPSPool}
