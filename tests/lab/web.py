"""One request to one address of the lab over TLS, whatever name its certificate has."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# Without the system's certificates, whose reading takes longer than all else of a request.
ANY_CERTIFICATE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANY_CERTIFICATE.check_hostname = False
ANY_CERTIFICATE.verify_mode = ssl.CERT_NONE


def get(
    address: str, path: str, *, timeout: float = 30, headers: Mapping[str, str] | None = None
) -> Answer:
    """Ask for a path (escaped as it goes over the wire); raises OSError as the connection does."""
    connection = http.client.HTTPSConnection(address, timeout=timeout, context=ANY_CERTIFICATE)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(status=answer.status, headers=names, body=answer.read())
