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


def get(
    address: str, path: str, *, timeout: float = 30, headers: Mapping[str, str] | None = None
) -> Answer:
    """Ask for a path (escaped as it goes over the wire); raises OSError as the connection does."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(address, timeout=timeout, context=context)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(status=answer.status, headers=names, body=answer.read())
