"""A probe's connection to one place where a backend may be."""

from __future__ import annotations

import http.client
import math
import socket
import ssl
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modhaven.pool.settings import TLS, Server


class Connection(http.client.HTTPConnection):
    """Over TLS where the pool has it; the certificate is for the pool's name, not the address.

    ``open_by`` (monotonic) is until when opening it may take; ``reached``: somebody took it;
    ``opened`` (monotonic): when that was.
    """

    def __init__(self, server: Server, tls: TLS | None, address: str) -> None:
        """Bind it to a backend's ``address``; nothing is opened yet."""
        super().__init__(server.address, server.port)
        self._tls = tls
        self._end = math.inf
        self.address = address
        self.open_by = math.inf
        self.reached = False
        self.opened = 0.0

    def bound(self, end: float) -> None:
        """Let what follows take until ``end`` (monotonic). TimeoutError when that has passed."""
        self._end = end
        self.timeout = _left(end)
        if self.sock is not None:
            self.sock.settimeout(self.timeout)

    def connect(self) -> None:
        """Open it; the client calls this. OSError."""
        self.reached = False
        end = min(self._end, self.open_by)
        plain = socket.create_connection((self.address, self.port), _left(end))
        self.reached = True
        self.opened = time.monotonic()
        plain.settimeout(_left(self._end))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = plain
        if self._tls is not None:
            # Read each time: certificates are renewed.
            context = ssl.create_default_context(cafile=self._tls.ca_file)
            context.load_cert_chain(self._tls.certificate_file, self._tls.key_file)
            self.sock = context.wrap_socket(plain, server_hostname=self._tls.name)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
