"""What an upstream replied: whether it is a file, and whether all of it arrives in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import urllib3.exceptions

from modhaven.attempt import AttemptError, Deadline

if TYPE_CHECKING:
    import socket

    from urllib3 import BaseHTTPResponse

_CHUNK_BYTES = 1 << 16
_OK = 200
_NOT_FOUND = frozenset({404, 410})
_TOO_MANY = 429
TRANSIENT = frozenset({_TOO_MANY, 500, 502, 503, 504})


def check_status(answer: BaseHTTPResponse) -> None:
    """Raise AttemptError for any status but 200."""
    status = answer.status
    if status == _OK:
        return
    if status in _NOT_FOUND:
        raise AttemptError(str(status), not_found=True)
    after = answer.headers.get("Retry-After", "")
    raise AttemptError(
        str(status),
        transient=status in TRANSIENT,
        retry_after=float(after) if after.isdecimal() and len(after) < 6 else 0.0,
        # 401, 403, 451 and the like are an answer about this module, not about the upstream.
        answered=status < 500 and status != _TOO_MANY,
    )


def copy(
    answer: BaseHTTPResponse, sink: BinaryIO, limit: int, end: Deadline, *, stall: float
) -> None:
    """Write the body to ``sink``; no pause may last longer than ``stall`` seconds. AttemptError."""
    # read1 returns what has arrived: a body that trickles must not outlast the deadline unseen.
    connection = _socket(answer)
    received = 0
    while True:
        if connection is not None:
            # What bounded the first byte does not bound the pauses of a body.
            connection.settimeout(max(0.01, min(stall, end.left)))
        try:
            chunk = answer.read1(_CHUNK_BYTES, decode_content=True)
        except urllib3.exceptions.TimeoutError:
            raise AttemptError(f"timed out after {received} bytes", timed_out=True) from None
        if not chunk:
            break
        received += len(chunk)
        if received > limit:
            raise AttemptError(f"body is larger than {limit} bytes", answered=True)
        if end.left <= 0:
            raise AttemptError(f"timed out after {received} bytes", timed_out=True)
        sink.write(chunk)
    declared = answer.headers.get("Content-Length")
    plain = answer.headers.get("Content-Encoding", "identity") == "identity"
    if plain and declared is not None and declared.isdecimal() and received != int(declared):
        raise AttemptError(f"body truncated, {received} of {declared} bytes", transient=True)


def _socket(answer: BaseHTTPResponse) -> socket.socket | None:
    """Return the connection below a body; None where the whole of it has arrived already."""
    at: object = answer
    for name in ("_fp", "fp", "raw", "_sock"):
        at = getattr(at, name, None)
    return at  # type: ignore[return-value] # http.client tells no other way
