"""HTTP in and out: routes, status codes, headers, error text, one log line a request."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import TYPE_CHECKING
from wsgiref.util import FileWrapper

from modhaven import metrics, protocol
from modhaven.answers import BusyError, NotFoundError, UnavailableError
from modhaven.attempt import Deadline
from modhaven.protocol import Class, Kind, MalformedError, NoSuchResourceError, Request
from modhaven.response import Answer, error_answer, log_request
from modhaven.store.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO
    from wsgiref.types import StartResponse, WSGIEnvironment

    from modhaven.answers import Found
    from modhaven.config import Config
    from modhaven.gateway import Gateway
    from modhaven.status import Status

log = logging.getLogger(__name__)

IMMUTABLE_SECONDS = 31_536_000
# Long enough that a crowd asks once, short enough that recovery shows at once.
STALE_ANSWER_SECONDS = 10
# When a refused client should ask again: some requests will have had their answer by then.
BUSY_SECONDS = 2
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
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


class App:
    """The WSGI application."""

    def __init__(self, *, config: Config, gateway: Gateway, status: Status) -> None:
        """Serve what ``gateway`` finds, and to operators ``status``."""
        self._config = config
        self._gateway = gateway
        self._status = status

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        started = time.monotonic()
        asked = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = asked if REQUEST_ID.fullmatch(asked) else secrets.token_hex(16)
        method = environ["REQUEST_METHOD"]
        try:
            answer = self._answer(method, environ, request_id)
        except Exception:
            log.exception("request %s failed", request_id)
            answer = error_answer(500, "internal error: see the log of the backend", [], request_id)
        accel = answer.file is not None and bool(self._config.accel_prefix)
        if accel:
            # The web server in front sends the file: no thread waits for a slow reader.
            where = f"{self._config.accel_prefix}/{answer.key}"
            answer.headers.append(("X-Accel-Redirect", where))
        opened: BinaryIO | None = None
        if answer.file is not None and method != "HEAD" and not accel:
            try:
                opened = answer.file.open("rb")
            except OSError as error:
                # Gone or unreadable since it was found: say so while the status can still be said.
                message = f"the store failed: {answer.file}: {error.strerror}"
                answer = error_answer(503, message, [], request_id)
                answer.headers.append(("Retry-After", "5"))
        start_response(
            f"{answer.status} {_REASONS[answer.status]}",
            [
                ("Content-Type", answer.content_type),
                ("Content-Length", "0" if accel else str(answer.length)),
                ("Cache-Control", answer.cache_control),
                ("X-Request-Id", request_id),
                ("X-Modhaven-Backend", self._config.node),
                ("X-Content-Type-Options", "nosniff"),
                *answer.headers,
            ],
        )
        metrics.requests.labels(answer.cls, answer.status).inc()
        metrics.request_seconds.labels(answer.cls).observe(time.monotonic() - started)
        log_request(environ, answer, request_id, started)
        if opened is not None:
            # The server sends the descriptor itself (sendfile): no byte passes through Python.
            wrapper = environ.get("wsgi.file_wrapper", FileWrapper)
            return wrapper(opened, 1 << 16)  # type: ignore[no-any-return] # the server's class
        return [] if method == "HEAD" or accel else [answer.body]

    def _answer(self, method: str, environ: WSGIEnvironment, request_id: str) -> Answer:
        if method not in ("GET", "HEAD"):
            answer = error_answer(
                405, f"method {method} is not allowed; use GET or HEAD", [], request_id
            )
            answer.headers.append(("Allow", "GET, HEAD"))
            return answer
        try:
            protocol.check_raw(environ.get("RAW_URI", ""))
            request = protocol.parse(_path(environ))
        except MalformedError as error:
            return error_answer(400, f"bad request: {error}", [], request_id)
        except NoSuchResourceError as error:
            answer = error_answer(404, f"not found: {error}", [], request_id)
            answer.cache_control = self._public(self._config.freshness.not_found_seconds)
            return answer
        if request.kind is Kind.METRICS:
            answer = Answer(
                status=200,
                content_type=metrics.CONTENT_TYPE_LATEST,
                body=metrics.page(self._status.metrics()),
            )
        elif request.kind is Kind.STATUS:
            # In the words of nginx's stub_status, which counts the request that asks, too.
            active = metrics.waiting_for_upstreams() + 1
            answer = Answer(status=200, body=f"Active connections: {active}\nWaiting: 0\n".encode())
        elif request.cls is Class.LOCAL:
            verbose = environ.get("QUERY_STRING") == "verbose"
            answer = self._local(request, request_id, verbose=verbose)
        else:
            answer = self._module(request, request_id)
        answer.cls = answer.log["class"] = request.cls.value
        return answer

    def _module(self, request: Request, request_id: str) -> Answer:
        deadline = Deadline.after(self._config.request_deadline_seconds)
        try:
            found = self._gateway.get(request, deadline)
        except NotFoundError as error:
            answer = error_answer(404, f"not found: {error}", error.attempts, request_id)
            answer.cache_control = self._public(self._config.freshness.not_found_seconds)
        except UnavailableError as error:
            status = 504 if error.timed_out else 502
            answer = error_answer(status, str(error), error.attempts, request_id)
        except StoreError as error:
            answer = error_answer(503, f"the store failed: {error}", [], request_id)
            answer.headers.append(("Retry-After", "5"))
        except BusyError as error:
            answer = error_answer(503, f"too busy: {error}", [], request_id)
            answer.headers.append(("Retry-After", str(BUSY_SECONDS)))
        else:
            answer = self._found(request, found)
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
            answer.key = request.path
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

    def _local(self, request: Request, request_id: str, *, verbose: bool) -> Answer:
        if request.kind is Kind.SUMDB_SUPPORTED:
            if self._gateway.serves_database(request.sumdb):
                return Answer(status=200)
            message = f"not found: checksum database {request.sumdb} is not mirrored here"
            return error_answer(404, message, [], request_id)
        if request.kind is Kind.HEALTHZ:
            return Answer(status=200, body=b"ok\n")
        problem = self._status.problem()
        answer = (
            Answer(status=200, body=b"ready\n")
            if problem is None
            else error_answer(503, problem, [], request_id)
        )
        if verbose:
            answer.body += "".join(f"{line}\n" for line in self._status.lines()).encode()
        return answer

    def _public(self, seconds: int) -> str:
        stale = self._config.freshness.stale_max_seconds
        return f"public, max-age={seconds}, stale-while-revalidate={min(seconds, stale)}"


def _path(environ: WSGIEnvironment) -> str:
    """Return the decoded path; PEP 3333 hands its bytes over as Latin-1."""
    raw: str = environ.get("PATH_INFO", "")
    if not raw.isascii():
        raise NoSuchResourceError("module paths and versions are ASCII")
    return raw or "/"
