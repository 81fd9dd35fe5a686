"""An answer before it is sent, the text of a failure, and the log line of a request."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from wsgiref.types import WSGIEnvironment

    from modhaven.attempt import Attempt

# cmd/go shows at most eight lines of an error's body (web.HTTPError).
ERROR_LINES = 8
# All of an answer's headers have to fit into one of nginx's buffers, of 4 KB.
_REASON_LINE = 240


@dataclass(slots=True, kw_only=True)
class Answer:
    """What goes out: a body, or a file of the store: its path, its key, and its size in bytes.

    ``cls`` is the request's class, ``none`` where it was refused before it had one.
    """

    status: int
    cls: str = "none"
    content_type: str = "text/plain; charset=utf-8"
    cache_control: str = "no-store"
    body: bytes = b""
    file: Path | None = None
    key: str = ""
    size: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    log: dict[str, object] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Bytes of what a GET receives."""
        return self.size if self.size is not None else len(self.body)


def error_answer(status: int, message: str, attempts: list[Attempt], request_id: str) -> Answer:
    """Return a failure in at most eight lines, the last of them the request id."""
    lines = [_one_line(message)]
    lines += [
        _one_line(f"{attempt.upstream}: {attempt.outcome}, {attempt.milliseconds} ms")
        for attempt in attempts
    ]
    kept = lines[: ERROR_LINES - 1]
    if len(kept) < len(lines):
        kept[-1] = f"and {len(lines) - len(kept) + 1} more upstreams"
    kept.append(f"request id: {request_id}")
    tried = [[a.upstream, a.outcome, a.milliseconds] for a in attempts]
    log_fields: dict[str, object] = {"error": lines[0]}
    if tried:
        log_fields["upstreams"] = tried
    answer = Answer(status=status, body=("\n".join(kept) + "\n").encode(), log=log_fields)
    if status in (502, 503, 504):
        # An edge has let go of the body when it finds that no other edge has the file: it makes
        # the same lines of this (templates/nginx/edge/snippets/locations.conf.j2).
        reason = "\t".join(line[:_REASON_LINE] for line in kept)
        answer.headers.append(("X-Modhaven-Reason", reason.encode("ascii", "replace").decode()))
    return answer


def _one_line(text: str) -> str:
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return text[:500]


def log_request(environ: WSGIEnvironment, answer: Answer, request_id: str, started: float) -> None:
    """Write one line of JSON; ``started`` is on the monotonic clock."""
    record = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "request_id": request_id,
        "method": environ["REQUEST_METHOD"],
        "path": _one_line(str(environ.get("RAW_URI") or environ.get("PATH_INFO", ""))),
        "status": answer.status,
        "bytes": answer.length,
        "milliseconds": round((time.monotonic() - started) * 1000),
        **answer.log,
    }
    # One write a line, so that lines of threads and workers do not mix.
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()
