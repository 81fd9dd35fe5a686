"""Open-loop load over HTTP(S) that checks every byte: so many requests a second, come what may.

A request is sent when its moment comes, whether or not earlier ones were answered (no coordinated
omission); its latency counts from that moment. Every body is compared with its known SHA-256.
Bounded in count and time, and connects to no address that the plan does not allow.

Standard library only, no import of its own, so that the text can be run on any host:
``python3 load.py PLAN`` prints the result as JSON; after SIGTERM it sends no more requests and does
the same. ``python3 load.py -`` reads the plan from the first line of standard input, writes
``{"started": …}`` and then each outcome as a line of JSON when it is there, and sends no more after
the end of its input: whoever started it may die without leaving it behind. The plan:

    {"targets": [{"url": "http://10.0.3.100/m/@v/v1.zip", "sha256": "…"}],
     "allowed": ["10.0.3.100"],
     "rate": 50, "seconds": 20, "timeout_seconds": 10, "keep_alive": false, "ca_file": "/…/ca.pem",
     "addresses": {"proxy.lab": "10.0.3.100"}}

``allowed`` are the addresses of the edges and the VIP. ``addresses`` names where to connect for a
host name that the resolver does not know. A body is not compared where ``sha256`` is empty.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import signal
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_RATE, MAX_SECONDS, MAX_REQUESTS, MAX_BODY = 500.0, 600.0, 100_000, 600 * 1024 * 1024
_FAILURES_KEPT = 50
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to ask, how often (requests a second) and for how long (seconds)."""

    targets: tuple[tuple[str, str], ...]  # (URL, SHA-256 in hex)
    allowed: tuple[str, ...]
    rate: float
    seconds: float
    timeout_seconds: float = 10.0
    keep_alive: bool = False
    ca_file: str | None = None
    addresses: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Read a plan; raises ValueError for one without bounds, TypeError for unknown keys."""
        targets = tuple((str(item["url"]), str(item["sha256"])) for item in data["targets"])
        allowed = tuple(str(address) for address in data["allowed"])
        plan = cls(**{**data, "targets": targets, "allowed": allowed})
        if not targets:
            raise ValueError("the plan has no targets")
        if not 0 < plan.rate <= MAX_RATE or not 0 < plan.seconds <= MAX_SECONDS:
            raise ValueError(f"rate must be up to {MAX_RATE:g}/s, seconds up to {MAX_SECONDS:g}")
        if plan.rate * plan.seconds > MAX_REQUESTS:
            raise ValueError(f"rate x seconds is over {MAX_REQUESTS} requests: make one smaller")
        return plan


@dataclass(frozen=True, kw_only=True)
class Target:
    """A URL taken apart and looked up: ``address`` is the IPv4 address to connect to."""

    url: str
    sha256: str
    secure: bool
    host: str
    address: str
    port: int
    path: str


@dataclass(kw_only=True)
class Outcome:
    """How one request ended; seconds count from the start of the load.

    ``sha256`` is that of the body that came; the others are what the answer says of itself.
    """

    due: float
    ended: float
    url: str
    error: str = ""
    wrong_bytes: bool = False
    sha256: str = ""
    cache: str = ""
    backend: str = ""
    source: str = ""
    stale: str = ""


def look_up(plan: Plan) -> list[Target]:
    """Resolve the plan's targets; raises ValueError for one at an address that is not allowed."""
    found = []
    allowed = {address for name in plan.allowed for address in _addresses_of(name)}
    for url, sha256 in plan.targets:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http or https URL")
        name = plan.addresses.get(parts.hostname, parts.hostname)
        address = socket.gethostbyname(name)
        if address not in allowed:
            raise ValueError(
                f"{url} leads to {address}, which is none of the addresses that may be loaded:"
                f" {', '.join(plan.allowed)}"
            )
        secure = parts.scheme == "https"
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        found.append(
            Target(
                url=url,
                sha256=sha256,
                secure=secure,
                host=parts.netloc.rpartition("@")[2],
                address=address,
                port=parts.port or (443 if secure else 80),
                path=path or "/",
            )
        )
    return found


def _addresses_of(name: str) -> list[str]:
    # An edge that only the controller knows by its name is not asked by it either.
    try:
        return [socket.gethostbyname(name)]
    except socket.gaierror:
        return []


class Load:
    """One run of a plan; ``told`` gets each outcome when it is there, one at a time."""

    def __init__(self, plan: Plan, told: Callable[[Outcome], object] | None = None) -> None:
        """Look the targets up, see ``look_up``; nothing is sent yet."""
        self.plan = plan
        self._told = told
        self.targets = look_up(plan)
        self.outcomes: list[Outcome] = []
        self._context = ssl.create_default_context(cafile=plan.ca_file)
        self._trusted_since = self._ca_changed()
        self._thread = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._begun = 0.0
        self.enough = threading.Event()

    def run(self) -> dict[str, Any]:
        """Send every request at its moment, wait for the last answer, give the result.

        When ``enough`` is set, no more are sent.
        """
        sent, total = 0, max(1, round(self.plan.rate * self.plan.seconds))
        in_flight = min(400, max(8, int(self.plan.rate * self.plan.timeout_seconds) + 1))
        wall = time.time()
        self._begun = time.monotonic()
        with ThreadPoolExecutor(in_flight) as pool:
            for number in range(total):
                due = number / self.plan.rate
                if self.enough.wait(max(0.0, self._begun + due - time.monotonic())):
                    break
                pool.submit(self._one, self.targets[number % len(self.targets)], due)
                sent += 1
        for connection in self._connections:
            connection.close()
        return summary(self.outcomes, sent, wall, time.monotonic() - self._begun)

    def _one(self, target: Target, due: float) -> None:
        outcome = Outcome(due=due, ended=0.0, url=target.url)
        try:
            self._ask(target, outcome)
        except (OSError, http.client.HTTPException, ValueError) as error:
            outcome.error = f"{type(error).__name__}: {error}"
        outcome.ended = time.monotonic() - self._begun
        with self._lock:
            self.outcomes.append(outcome)
            if self._told is not None:
                self._told(outcome)

    def _ask(self, target: Target, outcome: Outcome) -> None:
        deadline = time.monotonic() + self.plan.timeout_seconds
        # One kept connection a thread and host: no two requests at once on one connection.
        kept: dict[object, http.client.HTTPConnection] = vars(self._thread).setdefault("kept", {})
        key = (target.host, target.address, target.port)
        connection = kept.pop(key, None) if self.plan.keep_alive else None
        answer = None
        if connection is not None:
            # Like Go: a kept connection that turns out dead is worth one try on a new one.
            try:
                answer = self._send(connection, target)
            except (ConnectionError, http.client.RemoteDisconnected, ssl.SSLError):
                connection.close()
        if connection is None or answer is None:
            connection = self._connect(target)
            try:
                answer = self._send(connection, target)
            except BaseException:
                connection.close()
                raise
        try:
            self._judge(answer, target, outcome, deadline)
        except BaseException:
            connection.close()
            raise
        if self.plan.keep_alive and not answer.will_close and connection.sock is not None:
            kept[key] = connection
            self._connections.append(connection)
        else:
            connection.close()

    def _connect(self, target: Target) -> http.client.HTTPConnection:
        timeout = self.plan.timeout_seconds
        connection = http.client.HTTPConnection(target.address, target.port, timeout=timeout)
        connection.connect()
        if target.secure:
            try:
                name = target.host.partition(":")[0]
                connection.sock = self._trusting().wrap_socket(
                    connection.sock, server_hostname=name
                )
            except BaseException:
                connection.close()
                raise
        return connection

    def _ca_changed(self) -> int:
        return Path(self.plan.ca_file).stat().st_mtime_ns if self.plan.ca_file else 0

    def _trusting(self) -> ssl.SSLContext:
        # Builds are new processes: they trust whom the machine trusts now.
        with self._lock:
            changed = self._ca_changed()
            if changed != self._trusted_since:
                self._context = ssl.create_default_context(cafile=self.plan.ca_file)
                self._trusted_since = changed
            return self._context

    def _send(
        self, connection: http.client.HTTPConnection, target: Target
    ) -> http.client.HTTPResponse:
        headers = {"Host": target.host, "User-Agent": "modhaven-drill"}
        if not self.plan.keep_alive:
            headers["Connection"] = "close"
        connection.request("GET", target.path, headers=headers)
        return connection.getresponse()

    def _judge(
        self, answer: http.client.HTTPResponse, target: Target, outcome: Outcome, deadline: float
    ) -> None:
        digest, size = hashlib.sha256(), 0
        # read(n) hides a body cut short; the length tells.
        expected = answer.length
        while chunk := answer.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if time.monotonic() > deadline:
                raise TimeoutError(f"body not complete after {self.plan.timeout_seconds:g} s")
            if size > MAX_BODY:
                raise ValueError(f"body of more than {MAX_BODY} octets")
        outcome.cache = answer.getheader("X-Modhaven-Cache", "")
        outcome.backend = answer.getheader("X-Modhaven-Backend", "")
        outcome.source = answer.getheader("X-Modhaven-Source", "")
        outcome.stale = answer.getheader("X-Modhaven-Stale", "")
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        if expected is not None and size != expected:
            raise ConnectionError(f"body cut at {size} of {expected} octets")
        outcome.sha256 = digest.hexdigest()
        if target.sha256 and outcome.sha256 != target.sha256:
            outcome.wrong_bytes = True
            raise ValueError("wrong bytes")


def summary(outcomes: list[Outcome], sent: int, wall: float, lasted: float) -> dict[str, Any]:
    """Sum up: times in seconds from the start, latencies in milliseconds of successes.

    ``longest_gap_seconds`` is the longest time without a success: between two that follow each
    other, before the first, or from the last to the moment the last request was due.
    """
    good = sorted((item for item in outcomes if not item.error), key=lambda item: item.ended)
    bad = sorted((item for item in outcomes if item.error), key=lambda item: item.due)
    moments = [0.0, *(item.ended for item in good)]
    moments.append(max(moments[-1], max((item.due for item in outcomes), default=0.0)))
    gaps = [(after - before, before) for before, after in itertools.pairwise(moments)]
    gap, gap_at = max(gaps)
    latencies = sorted(1000 * (item.ended - item.due) for item in good)
    return {
        "sent": sent,
        "ok": len(good),
        "failed": len(bad),
        "wrong_bytes": sum(item.wrong_bytes for item in bad),
        "errors": dict(Counter(item.error for item in bad).most_common(20)),
        "failures": [
            {"at_seconds": round(item.due, 3), "url": item.url, "error": item.error}
            for item in bad[:_FAILURES_KEPT]
        ],
        "longest_gap_seconds": round(gap, 3),
        "longest_gap_at_seconds": round(gap_at, 3),
        "p50_ms": percentile(latencies, 0.50),
        "p99_ms": percentile(latencies, 0.99),
        "max_ms": percentile(latencies, 1.0),
        "started": wall,
        "ended": wall + lasted,
        "cache": dict(Counter(item.cache for item in good)),
        "backends": dict(Counter(item.backend for item in good)),
    }


def percentile(ordered: list[float], share: float) -> float | None:
    """Give the value that so large a share of the ordered ones does not exceed; None: no values."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def _stream(text: str) -> None:
    """Run a plan, a line for each outcome, until it ends or standard input does."""

    def tell(outcome: Outcome) -> None:
        sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
        sys.stdout.flush()

    def wait_for_end() -> None:
        sys.stdin.read()
        load.enough.set()

    load = Load(Plan.from_json(json.loads(text)), tell)
    threading.Thread(target=wait_for_end, daemon=True).start()
    sys.stdout.write(json.dumps({"started": time.time()}) + "\n")
    sys.stdout.flush()
    load.run()


def _run(path: str) -> None:
    load = Load(Plan.from_json(json.loads(Path(path).read_text())))
    signal.signal(signal.SIGTERM, lambda *_: load.enough.set())
    json.dump(load.run(), sys.stdout, indent=1)


def main() -> int:
    """Run the plan named on the command line; exit status 2 for a plan that cannot be run."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: load.py PLAN.json, or - for standard input\n")
        return 2
    try:
        if sys.argv[1] == "-":
            _stream(sys.stdin.readline())
        else:
            _run(sys.argv[1])
    except (ValueError, TypeError, KeyError, OSError) as error:
        sys.stderr.write(f"load.py: this plan cannot be run: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
