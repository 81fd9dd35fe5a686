"""The backends of the pool, each probed in a thread of its own."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from modhaven.pool import names
from modhaven.pool.health import Health, Seen
from modhaven.pool.probe import Answer, Prober

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modhaven.pool.settings import PoolConfig, Server

log = logging.getLogger(__name__)
_JITTER = 0.1
# A bad answer after good ones, or a good one after bad ones, is looked into at once.
_UNSETTLED_SHARE = 0.2
# More would take most of a core; with a thousand backends the pause is a second, whatever is asked.
_MOST_PROBES_A_SECOND = 1000
# Where a name leads is looked up so often; not by the thread that probes, which a DNS may hold.
_NAMED_SECONDS = 20.0
# Sockets bound each wait, not their sum: an answer that trickles in, or a resolver that is silent.
_LATE_TIMEOUTS = 2


class Backends:
    """Their health by name, kept up to date until ``stop``; to be used from one thread."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        """``on_change`` is called, in any thread, when one comes up or goes down."""
        self._on_change = on_change
        self._watched: dict[str, _Watched] = {}

    def configure(self, config: PoolConfig, known: Mapping[str, Seen]) -> None:
        """Watch the servers of ``config`` and no others.

        Who stays where it was keeps its state; of others ``known`` may say something.
        """
        old, self._watched = self._watched, {}
        for server in config.servers:
            before = old.get(server.name)
            if before is not None and before.place != (server.address, server.port):
                before = None
            bounds = (config.probe, config.tls)
            if before is not None and before.bounds == bounds:
                self._watched[server.name] = before
                continue
            seen = before.health.seen if before is not None else known.get(server.name)
            self._watched[server.name] = _Watched(server, config, seen, self._on_change)
        for name, watched in old.items():
            if self._watched.get(name) is not watched:
                watched.stopped.set()
        for watched in self._watched.values():
            watched.start()

    def seen(self) -> dict[str, Seen]:
        """Return what is known of each by its name."""
        now = time.monotonic()
        for watched in self._watched.values():
            watched.judge_late(now)
        return {name: watched.health.seen for name, watched in self._watched.items()}

    def stop(self) -> None:
        """End all probes."""
        for watched in self._watched.values():
            watched.stopped.set()


class _Watched:
    """One backend and the thread that probes it."""

    def __init__(
        self, server: Server, config: PoolConfig, seen: Seen | None, on_change: Callable[[], None]
    ) -> None:
        self.place = (server.address, server.port)
        self.bounds = (config.probe, config.tls)
        self.health = Health(config.probe, seen)
        self.stopped = threading.Event()
        self._name = server.name
        self._timeout = config.probe.timeout_seconds
        self._pause = max(
            config.probe.interval_seconds, len(config.servers) / _MOST_PROBES_A_SECOND
        )
        self._prober = Prober(
            server, config.tls, config.probe.timeout_seconds, self.health.seen.address
        )
        self._on_change = on_change
        self._server = server
        self._thread = threading.Thread(target=self._run, name=f"probe {server.name}", daemon=True)
        self._begun: float | None = None
        self._late_at = 0.0

    def start(self) -> None:
        """Begin, where it has not begun."""
        if self._thread.ident is None:
            self._thread.start()
            if names.is_name(self._server.address):
                name = f"look up {self._server.name}"
                threading.Thread(target=self._look_up, name=name, daemon=True).start()

    def judge_late(self, now: float) -> None:
        """Count a probe that does not end as a bad answer; again for each such time it takes."""
        begun, bound = self._begun, _LATE_TIMEOUTS * self._timeout
        if begun is not None and now - max(begun, self._late_at) > bound:
            self._late_at = now
            late = f"no whole answer within {bound:g} s"
            self._note(Answer(error=late, in_flight_at=time.time(), silent=True))

    def _run(self) -> None:
        # Not all at once: neither at the start nor, with the jitter below, later.
        wait = self._pause * random.random()  # noqa: S311 - only spreads
        while not self.stopped.wait(wait):
            begun = time.monotonic()
            self._begun = begun
            answer = self._ask()
            self._begun = None
            self._note(answer)
            share = 1.0 if self.health.settled else _UNSETTLED_SHARE
            spread = 1 + _JITTER * (2 * random.random() - 1)  # noqa: S311 - only spreads
            due = begun + self._pause * share * spread
            wait = max(0.0, due - time.monotonic())
        self._prober.close()

    def _look_up(self) -> None:
        while not self.stopped.wait(_NAMED_SECONDS):
            self._prober.lead_to(names.addresses(self._server))

    def _ask(self) -> Answer:
        try:
            return self._prober.ask()
        except Exception:
            # Whoever is not probed would stay what it is for ever.
            log.exception("%s cannot be probed", self._name)
            return Answer(error="cannot be probed: see the log", in_flight_at=time.time())

    def _note(self, answer: Answer) -> None:
        if self.health.note(answer):
            why = f": {answer.error}" if answer.error else ""
            log.info("%s is %s%s", self._name, self.health.seen.state, why)
            self._on_change()
