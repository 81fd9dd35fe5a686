"""One upstream: a bounded request with retries, that says precisely how it failed."""

from __future__ import annotations

import http.cookiejar
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

import requests
import requests.adapters
import urllib3.exceptions

from modhaven import __version__
from modhaven.breaker import Breaker

if TYPE_CHECKING:
    from pathlib import Path

    from modhaven.chain_spec import UpstreamSpec
    from modhaven.config import BreakerConfig, Timeouts

_CHUNK_BYTES = 1 << 16
_BACKOFF_SECONDS = 0.1
# A mirror that asks for a longer pause is as good as down for this request.
_RETRY_AFTER_MAX_SECONDS = 5.0
_NOT_FOUND = frozenset({404, 410})
_TRANSIENT = frozenset({429, 500, 502, 503, 504})
_MAX_REDIRECTS = 10


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment, on the monotonic clock, when a request's answer is due."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline ``seconds`` from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds that remain, never negative."""
        return max(0.0, self.at - time.monotonic())


class AttemptError(Exception):
    """An upstream did not give the file. The text is what an operator reads: ``500``, ``reset``."""

    def __init__(
        self,
        outcome: str,
        *,
        not_found: bool = False,
        timed_out: bool = False,
        transient: bool = False,
        retry_after: float = 0.0,
        answered: bool = False,
    ) -> None:
        """Describe a failure; ``answered``: not the upstream's health is at fault."""
        super().__init__(outcome)
        self.not_found = not_found
        self.timed_out = timed_out
        self.transient = transient
        self.retry_after = retry_after
        self.answered = answered or not_found


def make_session(
    *, ca_file: Path, pool_size: int, certificate: tuple[Path, Path] | None = None
) -> requests.Session:
    """Return a connection pool of one worker process, for many upstreams and all threads.

    It trusts the authorities of ``ca_file``, shows ``certificate`` (certificate and key) where it
    is asked for one, reads neither proxy variables nor .netrc, and keeps no cookies.
    """
    session = requests.Session()
    session.trust_env = False
    session.verify = str(ca_file)
    if certificate is not None:
        session.cert = (str(certificate[0]), str(certificate[1]))
    session.max_redirects = _MAX_REDIRECTS
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    # identity: a transparent gzip would change what Content-Length is compared with.
    session.headers.update(
        {"User-Agent": f"modhaven/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
    )
    for scheme in ("http://", "https://"):
        adapter = requests.adapters.HTTPAdapter(pool_connections=16, pool_maxsize=pool_size)
        session.mount(scheme, adapter)
    return session


class Upstream:
    """One source of the chain, with its circuit breaker."""

    def __init__(
        self,
        spec: UpstreamSpec,
        *,
        session: requests.Session,
        timeouts: Timeouts,
        retries: int,
        breaker: BreakerConfig,
    ) -> None:
        """Bind a source to the worker's session and its bounds."""
        self.name = spec.name
        self.url = spec.url
        self.falls_through = spec.falls_through
        self.is_off = spec.is_off
        self.breaker = Breaker(failures=breaker.failures, open_seconds=breaker.open_seconds)
        self._session = session
        self._timeouts = timeouts
        self._retries = retries

    def fetch(self, path: str, sink: BinaryIO, *, limit: int, deadline: Deadline) -> None:
        """Write the body of ``path`` (escaped, no leading slash) to ``sink``.

        At most ``limit`` bytes are taken, a longer body is a failure. ``sink`` is emptied first,
        and again before each retry. Resets, truncated bodies, 429 and 5xx are tried again after a
        jittered pause; timeouts are not, the next upstream is quicker.
        Raises AttemptError.
        """
        for attempt in range(self._retries + 1):
            sink.seek(0)
            sink.truncate()
            try:
                self._fetch_once(path, sink, limit, deadline)
            except AttemptError as error:
                pause = max(_BACKOFF_SECONDS * 2**attempt * _jitter(), error.retry_after)
                last = attempt == self._retries or not error.transient
                if last or pause > _RETRY_AFTER_MAX_SECONDS or pause > deadline.left:
                    raise
                time.sleep(pause)
            else:
                return

    def probe(self) -> bool:
        """Ask for the base address; tell whether anything sensible answers in time."""
        timeout = (self._timeouts.connect_seconds, self._timeouts.first_byte_seconds)
        try:
            with self._session.get(
                self.url + "/", stream=True, timeout=timeout, allow_redirects=False
            ) as response:
                return response.status_code not in _TRANSIENT
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
            return False

    def _fetch_once(self, path: str, sink: BinaryIO, limit: int, deadline: Deadline) -> None:
        bound = min(deadline.left, self._timeouts.total_seconds)
        if bound <= 0:
            raise AttemptError("no time left", timed_out=True, answered=True)
        end = Deadline.after(bound)
        timeout = (
            min(self._timeouts.connect_seconds, bound),
            min(self._timeouts.first_byte_seconds, bound),
        )
        url = f"{self.url}/{quote(path, safe='/!@$&+=:,~')}"
        try:
            with self._session.get(url, stream=True, timeout=timeout) as response:
                _check_status(response)
                if url.startswith("https:") and not response.url.startswith("https:"):
                    raise AttemptError("redirected from https to http")
                _copy(response, sink, limit, end)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _explain(error) from error


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status == requests.codes.ok:
        return
    if status in _NOT_FOUND:
        raise AttemptError(str(status), not_found=True)
    after = response.headers.get("Retry-After", "")
    raise AttemptError(
        str(status),
        transient=status in _TRANSIENT,
        retry_after=float(after) if after.isdecimal() and len(after) < 6 else 0.0,
        # 401, 403, 451 and the like are an answer about this module, not about the upstream.
        answered=status < 500 and status != requests.codes.too_many_requests,
    )


def _copy(response: requests.Response, sink: BinaryIO, limit: int, end: Deadline) -> None:
    # read1 returns what has arrived: a body that trickles must not outlast the deadline unseen.
    received = 0
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        received += len(chunk)
        if received > limit:
            raise AttemptError(f"body is larger than {limit} bytes", answered=True)
        if end.left <= 0:
            raise AttemptError(f"timed out after {received} bytes", timed_out=True)
        sink.write(chunk)
    declared = response.headers.get("Content-Length")
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    if plain and declared is not None and declared.isdecimal() and received != int(declared):
        raise AttemptError(f"body truncated, {received} of {declared} bytes", transient=True)


def _explain(error: Exception) -> AttemptError:
    """Say in a word what broke; library texts name objects and addresses, not causes."""
    text = str(error).lower()
    timeouts = (requests.Timeout, urllib3.exceptions.TimeoutError)
    if isinstance(error, timeouts) or "timed out" in text:
        return AttemptError("timed out", timed_out=True)
    if "certificate" in text or isinstance(error, requests.exceptions.SSLError):
        return AttemptError("TLS failed: certificate or handshake refused")
    words = {
        "name or service not known": "name not resolved",
        "failed to resolve": "name not resolved",
        "name resolution": "name not resolved",
        "connection refused": "connection refused",
        "incompleteread": "body truncated",
        "invalidchunklength": "body truncated",
        "reset by peer": "connection reset",
        "connection aborted": "connection closed",
        "network is unreachable": "network unreachable",
        "no route to host": "no route to host",
        "redirects": "redirected too often",
    }
    for word, outcome in words.items():
        if word in text:
            return AttemptError(outcome, transient=True)
    return AttemptError(f"failed: {type(error).__name__}", transient=True)


def _jitter() -> float:
    return 0.5 + random.random()  # noqa: S311 - spreads retries, protects nothing
