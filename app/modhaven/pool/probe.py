"""Asks one backend, the way the edge's nginx does, whether it is ready and how busy it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import urllib3
import urllib3.exceptions

from modhaven.pool.nginx import in_flight

if TYPE_CHECKING:
    from modhaven.pool.settings import PoolConfig, Server

_MOST_BYTES = 2000


class NotReadyError(Exception):
    """It is not to be asked; the text says why in a few words."""


class Prober:
    """The connection to one backend."""

    def __init__(self, server: Server, config: PoolConfig) -> None:
        """Bind a backend to the pool's TLS and its time bound; nothing is opened yet."""
        self._seconds = config.probe.timeout_seconds
        kind: Any = urllib3.HTTPConnectionPool
        options: dict[str, Any] = {}
        if config.tls is not None:
            kind = urllib3.HTTPSConnectionPool
            options = {
                "ca_certs": str(config.tls.ca_file),
                "cert_file": str(config.tls.certificate_file),
                "key_file": str(config.tls.key_file),
                "server_hostname": config.tls.name,
                "assert_hostname": config.tls.name,
            }
        self._pool = kind(
            server.address,
            server.port,
            maxsize=1,
            retries=False,
            headers={"Accept": "*/*"},
            **options,
        )

    def ask(self) -> int | None:
        """Return how many requests it works on, None where it does not say. NotReadyError."""
        end = time.monotonic() + self._seconds
        status, body = self._get("/readyz", end)
        if status != 200:
            reason = body.decode("utf-8", "replace").splitlines()
            raise NotReadyError(f"{status} {reason[0] if reason else ''}".strip()[:200])
        status, body = self._get("/-/status", end)
        return in_flight(body) if status == 200 else None

    def _get(self, path: str, end: float) -> tuple[int, bytes]:
        left = end - time.monotonic()
        if left <= 0:
            raise NotReadyError(f"no answer within {self._seconds:g} s")
        try:
            answer = self._pool.urlopen(
                "GET", path, timeout=urllib3.Timeout(total=left), preload_content=False
            )
            body = answer.read(_MOST_BYTES)
            answer.drain_conn()
            answer.release_conn()
        except (urllib3.exceptions.TimeoutError, TimeoutError):
            raise NotReadyError(f"no answer within {self._seconds:g} s") from None
        except urllib3.exceptions.HTTPError as error:
            raise NotReadyError(_words(error)) from None
        return answer.status, body


def _words(error: Exception) -> str:
    text = str(error).lower()
    for known in (
        "connection refused",
        "no route to host",
        "network is unreachable",
        "reset by peer",
    ):
        if known in text:
            return known
    if "certificate" in text or "ssl" in text:
        return "TLS failed: certificate or handshake refused"
    return f"failed: {type(error).__name__}"
