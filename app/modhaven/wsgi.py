"""HTTP in and out: routes, status codes, headers, error text, one log line a request."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from wsgiref.util import FileWrapper

from modhaven import protocol
from modhaven.attempt import Deadline
from modhaven.gateway import NotFoundError, UnavailableError
from modhaven.protocol import Class, Kind, MalformedError, NoSuchResourceError, Request
from modhaven.store.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO
    from wsgiref.types import StartResponse, WSGIEnvironment

    from modhaven.attempt import Attempt
    from modhaven.config import Config
    from modhaven.gateway import Found, Gateway
    from modhaven.store.base import Store

log = logging.getLogger(__name__)

IMMUTABLE_SECONDS = 31_536_000
# Long enough that a crowd asks once, short enough that recovery shows at once.
STALE_ANSWER_SECONDS = 10
# cmd/go shows at most eight lines of an error's body (web.HTTPError).
ERROR_LINES = 8
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_TYPES = {
    Kind.LIST: "text/plain; charset=utf-8",
    Kind.LATEST: "application/json",
    Kind.INFO: "application/json",
    Kind.QUERY: "application/json",
    Kind.MOD: "text/plain; charset=utf-8",
    Kind.ZIP: "application/zip",
    Kind.SUMDB_LATEST: "text/plain; charset=utf-8",
    Kind.SUMDB_LOOKUP: "text/plain; charset=utf-8",
    Kind.SUMDB_TILE: "application/octet-stream",
}
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(slots=True, kw_only=True)
class Answer:
    """What goes out: a body, or a file's path and size in bytes."""

    status: int
    content_type: str = "text/plain; charset=utf-8"
    cache_control: str = "no-store"
    body: bytes = b""
    file: Path | None = None
    size: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    log: dict[str, object] = field(default_factory=dict)


class App:
    """The WSGI application."""

    def __init__(self, *, config: Config, gateway: Gateway, store: Store) -> None:
        """Serve what ``gateway`` finds, and the readiness of ``store``."""
        self._config = config
        self._gateway = gateway
        self._store = store

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        started = time.monotonic()
        asked = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(16)
        method = environ["REQUEST_METHOD"]
        try:
            answer = self._answer(method, environ, request_id)
        except Exception:
            log.exception("request %s failed", request_id)
            answer = _error(500, "internal error: see the log of the backend", [], request_id)
        opened: BinaryIO | None = None
        if answer.file is not None and method != "HEAD":
            try:
                opened = answer.file.open("rb")
            except OSError as error:
                # Gone or unreadable since it was found: say so while the status can still be said.
                message = f"the store failed: {answer.file}: {error.strerror}"
                answer = _error(503, message, [], request_id)
                answer.headers.append(("Retry-After", "5"))
        size = answer.size if answer.size is not None else len(answer.body)
        start_response(
            f"{answer.status} {_REASONS[answer.status]}",
            [
                ("Content-Type", answer.content_type),
                ("Content-Length", str(size)),
                ("Cache-Control", answer.cache_control),
                ("X-Request-Id", request_id),
                ("X-Modhaven-Backend", self._config.node),
                ("X-Content-Type-Options", "nosniff"),
                *answer.headers,
            ],
        )
        _log_request(environ, answer, request_id, size, started)
        if opened is not None:
            # The server sends the descriptor itself (sendfile): no byte passes through Python.
            wrapper = environ.get("wsgi.file_wrapper", FileWrapper)
            return wrapper(opened, 1 << 16)  # type: ignore[no-any-return] # the server's class
        return [] if method == "HEAD" else [answer.body]

    def _answer(self, method: str, environ: WSGIEnvironment, request_id: str) -> Answer:
        if method not in ("GET", "HEAD"):
            answer = _error(405, f"method {method} is not allowed; use GET or HEAD", [], request_id)
            answer.headers.append(("Allow", "GET, HEAD"))
            return answer
        try:
            protocol.check_raw(environ.get("RAW_URI", ""))
            request = protocol.parse(_path(environ))
        except MalformedError as error:
            return _error(400, f"bad request: {error}", [], request_id)
        except NoSuchResourceError as error:
            answer = _error(404, f"not found: {error}", [], request_id)
            answer.cache_control = self._public(self._config.freshness.not_found_seconds)
            return answer
        if request.cls is Class.LOCAL:
            return self._local(request, request_id)
        return self._module(request, request_id)

    def _module(self, request: Request, request_id: str) -> Answer:
        deadline = Deadline.after(self._config.request_deadline_seconds)
        try:
            found = self._gateway.get(request, deadline)
        except NotFoundError as error:
            answer = _error(404, f"not found: {error}", error.attempts, request_id)
            answer.cache_control = self._public(self._config.freshness.not_found_seconds)
        except UnavailableError as error:
            status = 504 if error.timed_out else 502
            answer = _error(status, str(error), error.attempts, request_id)
        except StoreError as error:
            answer = _error(503, f"the store failed: {error}", [], request_id)
            answer.headers.append(("Retry-After", "5"))
        else:
            answer = self._found(request, found)
        answer.log["class"] = request.cls.value
        return answer

    def _found(self, request: Request, found: Found) -> Answer:
        answer = Answer(
            status=200,
            content_type=_TYPES[request.kind],
            body=found.body,
            headers=[("X-Modhaven-Source", found.source)],
            log={"source": found.source},
        )
        if found.stored is not None:
            answer.file, answer.size = found.stored.path, found.stored.size
        if found.stale_seconds is not None:
            answer.headers.append(("X-Modhaven-Stale", str(found.stale_seconds)))
            answer.log["stale"] = found.stale_seconds
            answer.cache_control = f"public, max-age={STALE_ANSWER_SECONDS}"
        elif request.cls is Class.IMMUTABLE:
            answer.cache_control = f"public, max-age={IMMUTABLE_SECONDS}, immutable"
        else:
            answer.cache_control = self._public(self._config.freshness.mutable_seconds)
        if found.unverified:
            answer.headers.append(("X-Modhaven-Unverified", "1"))
            answer.log["unverified"] = True
            # An edge must not keep for a year what may yet turn out to be wrong.
            answer.cache_control = self._public(self._config.freshness.mutable_seconds)
        return answer

    def _local(self, request: Request, request_id: str) -> Answer:
        if request.kind is Kind.SUMDB_SUPPORTED:
            if self._gateway.serves_database(request.sumdb):
                return Answer(status=200)
            message = f"not found: checksum database {request.sumdb} is not mirrored here"
            return _error(404, message, [], request_id)
        if request.kind is Kind.HEALTHZ:
            return Answer(status=200, body=b"ok\n")
        if self._config.drain_file.exists():
            return _error(503, f"draining: {self._config.drain_file} exists", [], request_id)
        problem = self._store.problem()
        if problem is not None:
            return _error(503, f"not ready: {problem}", [], request_id)
        return Answer(status=200, body=b"ready\n")

    def _public(self, seconds: int) -> str:
        stale = self._config.freshness.stale_max_seconds
        return f"public, max-age={seconds}, stale-while-revalidate={min(seconds, stale)}"


def _path(environ: WSGIEnvironment) -> str:
    """Return the decoded path; PEP 3333 hands its bytes over as Latin-1."""
    raw: str = environ.get("PATH_INFO", "")
    if not raw.isascii():
        raise NoSuchResourceError("module paths and versions are ASCII")
    return raw or "/"


def _error(status: int, message: str, attempts: list[Attempt], request_id: str) -> Answer:
    """Return a failure in at most eight lines, the last of them the request id."""
    lines = [_one_line(message)]
    lines += [
        _one_line(f"{attempt.upstream}: {attempt.outcome}, {attempt.milliseconds} ms")
        for attempt in attempts
    ]
    kept = lines[: ERROR_LINES - 1]
    if len(kept) < len(lines):
        kept[-1] = f"… and {len(lines) - len(kept) + 1} more upstreams"
    kept.append(f"request id: {request_id}")
    tried = [[a.upstream, a.outcome, a.milliseconds] for a in attempts]
    log_fields: dict[str, object] = {"error": lines[0]}
    if tried:
        log_fields["upstreams"] = tried
    return Answer(status=status, body=("\n".join(kept) + "\n").encode(), log=log_fields)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:500]


def _log_request(
    environ: WSGIEnvironment, answer: Answer, request_id: str, size: int, started: float
) -> None:
    record = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "request_id": request_id,
        "method": environ["REQUEST_METHOD"],
        "path": _one_line(str(environ.get("RAW_URI") or environ.get("PATH_INFO", ""))),
        "status": answer.status,
        "bytes": size,
        "milliseconds": round((time.monotonic() - started) * 1000),
        **answer.log,
    }
    # One write a line, so that lines of threads and workers do not mix.
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()
