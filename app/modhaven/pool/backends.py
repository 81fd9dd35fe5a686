"""The backends of the pool, each probed in a thread of its own."""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING

from modhaven.pool.health import Health
from modhaven.pool.probe import NotReadyError, Prober

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from modhaven.pool.settings import PoolConfig, Server

log = logging.getLogger(__name__)
_JITTER = 0.1
# A bad answer after good ones, or a good one after bad ones, is looked into at once.
_UNSETTLED_SHARE = 0.2


class Backends:
    """Their health by name, kept up to date until ``stop``."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        """``on_change`` is called, in any thread, when one comes up or goes down."""
        self._on_change = on_change
        self._watched: dict[str, _Watched] = {}

    def configure(self, config: PoolConfig, *, known_up: Collection[str] = ()) -> None:
        """Watch the servers of ``config`` and no others; those that nginx asks are taken for up.

        Who stays where it was keeps its state.
        """
        old, self._watched = self._watched, {}
        for server in config.servers:
            before = old.get(server.name)
            same = before is not None and before.place == (server.address, server.port)
            health = (
                before.health.with_bounds(config.probe)
                if before is not None and same
                else Health(config.probe, known_up=server.name in known_up)
            )
            self._watched[server.name] = _Watched(server, config, health, self._on_change)
        for watched in old.values():
            watched.stopped.set()
        for watched in self._watched.values():
            watched.start()

    def health(self, name: str) -> Health:
        """Return what is known of one backend."""
        return self._watched[name].health

    def states(self) -> dict[str, str]:
        """Return the state of each by its name: up, down or joining."""
        return {name: watched.health.state for name, watched in self._watched.items()}

    def stop(self) -> None:
        """End all probes."""
        for watched in self._watched.values():
            watched.stopped.set()


class _Watched:
    """One backend and the thread that probes it."""

    def __init__(
        self, server: Server, config: PoolConfig, health: Health, on_change: Callable[[], None]
    ) -> None:
        self.place = (server.address, server.port)
        self.health = health
        self.stopped = threading.Event()
        self._name = server.name
        self._interval = config.probe.interval_seconds
        self._prober = Prober(server, config)
        self._on_change = on_change

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"probe {self._name}", daemon=True).start()

    def _run(self) -> None:
        # Not all at once: neither at the start nor, with the jitter below, later.
        wait = self._interval * random.random()  # noqa: S311 - only spreads
        while not self.stopped.wait(wait):
            if self._probe():
                log.info("%s is %s %s", self._name, self.health.state, self.health.error)
                self._on_change()
            share = 1.0 if self.health.settled else _UNSETTLED_SHARE
            spread = 1 + _JITTER * (2 * random.random() - 1)  # noqa: S311 - only spreads
            wait = self._interval * share * spread

    def _probe(self) -> bool:
        try:
            return self.health.good(self._prober.ask())
        except NotReadyError as error:
            return self.health.bad(str(error))
        except Exception:
            # Whoever is not probed would stay what it is for ever.
            log.exception("%s cannot be probed", self._name)
            return self.health.bad("cannot be probed: see the log")
