"""One upstream: a bounded request with retries, that says precisely how it failed."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import random
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

import urllib3.exceptions
import urllib3.util

from modhaven import metrics
from modhaven.attempt import AttemptError, Deadline, explain
from modhaven.breaker import Breaker
from modhaven.latency import Latencies
from modhaven.reply import TRANSIENT, check_status, copy
from modhaven.transport import make_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3 import BaseHTTPResponse

    from modhaven.board import Place
    from modhaven.chain_spec import UpstreamSpec
    from modhaven.settings import BreakerConfig, Timeouts
    from modhaven.source import Source
    from modhaven.transport import Session

__all__ = ["AttemptError", "Deadline", "Turn", "Upstream", "make_session"]

log = logging.getLogger(__name__)
_BACKOFF_SECONDS = 0.1
# A mirror that asks for a longer pause is as good as down for this request.
_RETRY_AFTER_MAX_SECONDS = 5.0


class Upstream:
    """One source of the chain, with its circuit breaker."""

    def __init__(
        self,
        spec: UpstreamSpec,
        *,
        session: Session,
        timeouts: Timeouts,
        retries: int,
        breaker: BreakerConfig,
        place: Place | None = None,
    ) -> None:
        """Bind a source to its session and its bounds; its own go before the common ones.

        At ``place`` the other workers hear of its timeouts.
        """
        own = {
            key: value
            for key in ("connect_seconds", "first_byte_seconds", "total_seconds")
            if (value := getattr(spec, key)) is not None
        }
        self.name = spec.name
        self.url = spec.url
        self.falls_through = spec.falls_through
        self.is_off = spec.is_off
        self.is_direct = False
        self.breaker = Breaker(
            failures=breaker.failures,
            open_seconds=breaker.open_seconds,
            probed=spec.health_check,
            place=place,
            on_change=metrics.upstream_open.labels(spec.name).set,
        )
        self.latencies = Latencies()
        self._spec = spec
        self._session = session
        self._timeouts = dataclasses.replace(timeouts, **own)
        self._retries = retries if spec.retries is None else spec.retries
        self._probe_began = 0.0
        self._probe_over = threading.Event()
        self._prober = threading.Lock()

    def is_for(self, module: str, *, private: bool) -> bool:
        """Tell whether ``module`` may be asked for here (UpstreamSpec.is_for)."""
        return self._spec.is_for(module, private=private)

    @property
    def serves_all(self) -> bool:
        """Tell whether it was not restricted to the modules of some patterns."""
        return not self._spec.modules

    def fetch(
        self, path: str, sink: BinaryIO, *, limit: int, deadline: Deadline, hurried: bool = False
    ) -> None:
        """Write the body of ``path`` (escaped, no leading slash) to ``sink``.

        At most ``limit`` bytes are taken, a longer body is a failure. ``sink`` is emptied first,
        and again before each retry. Resets, truncated bodies, 429 and 5xx are tried again after a
        jittered pause; timeouts are not, the next upstream is quicker. ``hurried``: the answer must
        begin within the patience that others are waiting for; the error says when it did not.
        Raises AttemptError.
        """
        for attempt in range(self._retries + 1):
            sink.seek(0)
            sink.truncate()
            try:
                self._fetch_once(path, sink, limit, deadline, hurried=hurried)
            except AttemptError as error:
                pause = max(_BACKOFF_SECONDS * 2**attempt * _jitter(), error.retry_after)
                last = attempt == self._retries or not error.transient
                if last or pause > _RETRY_AFTER_MAX_SECONDS or pause > deadline.left:
                    raise
                time.sleep(pause)
            else:
                return

    def has(self, path: str, *, seconds: float) -> None:
        """Return when ``path`` is there, without fetching it. Raises AttemptError."""
        with self._asked_once("HEAD", path, seconds):
            pass

    def small(self, path: str, *, limit: int, seconds: float) -> tuple[bytes, str]:
        """Return a small body, and what ours say of its age: the header X-Modhaven-Stale.

        All of it must arrive within ``seconds``. Raises AttemptError.
        """
        sink = io.BytesIO()
        end = Deadline.after(seconds)
        with self._asked_once("GET", path, seconds) as answer:
            copy(answer, sink, limit, end, stall=seconds)
        return sink.getvalue(), answer.headers.get("X-Modhaven-Stale", "")

    def probe_while_open(self) -> None:
        """See to it that an upstream that is left out is probed, in the background, until well."""
        if (
            self._spec.health_check
            and self.breaker.is_open
            and self._prober.acquire(blocking=False)
        ):
            self._probe_over.clear()
            self._probe_began = time.monotonic() + self.breaker.seconds_to_probe
            threading.Thread(target=self._probe_until_well, daemon=True).start()

    def recovers(self, *, seconds: float) -> bool:
        """Tell whether a probe finds it well; waits until ``seconds`` after the probe began."""
        left = self._probe_began + seconds - time.monotonic()
        if self.breaker.is_open and left > 0:
            self._probe_over.wait(left)
        return not self.breaker.is_open

    def probe(self) -> bool:
        """Ask for the base address; tell whether anything sensible answers in time."""
        timeout = urllib3.util.Timeout(
            connect=self._timeouts.connect_seconds, read=self._timeouts.first_byte_seconds
        )
        try:
            with self._session.send("GET", self.url + "/", timeout=timeout) as answer:
                return answer.status not in TRANSIENT
        except (AttemptError, urllib3.exceptions.HTTPError, OSError):
            return False

    def _probe_until_well(self) -> None:
        try:
            while self.breaker.is_open:
                time.sleep(self.breaker.seconds_to_probe)
                self._probe_over.clear()
                self._probe_began = time.monotonic()
                if self.breaker.claim_probe() and self.probe():
                    self.breaker.found_well()
                    log.info("upstream %s answers again", self.name)
                self._probe_over.set()
        finally:
            self._prober.release()

    @contextlib.contextmanager
    def _asked_once(self, method: str, path: str, seconds: float) -> Iterator[BaseHTTPResponse]:
        timeout = urllib3.util.Timeout(total=seconds)
        try:
            with self._session.send(method, self._address(path), timeout=timeout) as answer:
                if answer.status != HTTPStatus.OK or method == "HEAD":
                    # An answer that was not read to its end costs the connection.
                    answer.drain_conn()
                check_status(answer)
                yield answer
        except urllib3.exceptions.HTTPError as error:
            raise explain(error) from error

    def _fetch_once(
        self, path: str, sink: BinaryIO, limit: int, deadline: Deadline, *, hurried: bool
    ) -> None:
        bound = min(deadline.left, self._timeouts.total_seconds)
        if bound <= 0:
            raise AttemptError("no time left", timed_out=True, answered=True)
        end = Deadline.after(bound)
        first_byte = min(self._timeouts.first_byte_seconds, bound)
        patience = self._timeouts.patience_seconds
        hurried = hurried and patience < first_byte
        timeout = urllib3.util.Timeout(
            connect=min(self._timeouts.connect_seconds, bound),
            read=first_byte,
            total=patience if hurried else bound,
        )
        begun = False
        try:
            with self._session.get(self._address(path), timeout=timeout) as answer:
                begun = True
                check_status(answer)
                copy(answer, sink, limit, end, stall=self._timeouts.first_byte_seconds)
        except urllib3.exceptions.HTTPError as error:
            explained = explain(error, proxied=bool(self._spec.proxy))
            explained.hurried = hurried and explained.timed_out and not begun
            raise explained from error

    def _address(self, path: str) -> str:
        return f"{self.url}/{quote(path, safe='/!@$&+=:,~')}"


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """An upstream's turn to answer a request; ``hurried`` while there may be a quicker one."""

    upstream: Source
    hurried: bool = False

    @property
    def name(self) -> str:
        """The upstream's name."""
        return self.upstream.name

    def fetch(self, path: str, sink: BinaryIO, *, limit: int, deadline: Deadline) -> None:
        """Do what Source.fetch does."""
        self.upstream.fetch(path, sink, limit=limit, deadline=deadline, hurried=self.hurried)


def _jitter() -> float:
    return 0.5 + random.random()  # noqa: S311 - spreads retries, protects nothing
