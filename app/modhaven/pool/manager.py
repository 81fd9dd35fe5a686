"""The daemon: joins the inventory with what it sees; nginx asks whom it should, and no others."""

from __future__ import annotations

import logging
import time
from threading import Event
from typing import TYPE_CHECKING

from modhaven.checks import ConfigError
from modhaven.pool import earlier, files, names, nginx, plan, settings, status
from modhaven.pool.backends import Backends
from modhaven.pool.drains import Drain, Drains
from modhaven.pool.metrics import Metrics
from modhaven.pool.publisher import Publisher
from modhaven.pool.surge import Demand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from modhaven.pool.health import Seen
    from modhaven.pool.paths import Paths
    from modhaven.pool.plan import Plan
    from modhaven.pool.settings import Server
    from modhaven.pool.status import PoolStatus

log = logging.getLogger(__name__)
_TICK_SECONDS = 0.25
# Nothing has changed: told all the same, so that in-flight figures are new.
_TELL_SECONDS = 1.0


def initial(paths: Paths) -> bool:
    """Give nginx a pool of everyone with an address where it has none; tell whether it had none.

    Raises ConfigError, NginxError, OSError.
    """
    server = nginx.Nginx(paths.nginx, paths.nginx_pid)
    config = settings.load(paths.config)
    if server.live():
        return False
    servers = [names.located(one, next(iter(names.addresses(one)), "")) for one in config.servers]
    if all(names.is_name(one.address) for one in servers):
        # nginx would refuse it, and find it in place the next time.
        raise nginx.NginxError("no backend of the pool has a name that can be looked up")
    whole = plan.make(
        servers,
        {one.name: "joining" if names.is_name(one.address) else "up" for one in servers},
        drained=Drains(paths.drained).all(),
        max_removed_share=config.max_removed_share,
        promote=False,
        balance=config.balance,
    )
    server.publish(nginx.render(paths.template, whole, config.limits))
    return True


class Manager:
    """Everything the daemon does between two moments."""

    def __init__(
        self,
        paths: Paths,
        *,
        connections: Callable[[], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the configuration, and take up where the last one ended. ConfigError, NginxError.

        ``connections`` tells how busy this edge is.
        """
        self._paths = paths
        self._connections = connections
        self._clock = clock
        self._drains = Drains(paths.drained)
        self._problems: dict[str, str] = {}
        self._metrics = Metrics()
        self._wake = Event()
        self._backends = Backends(self._wake.set)
        self._publisher = Publisher(
            paths.template, nginx.Nginx(paths.nginx, paths.nginx_pid), self._metrics, clock
        )
        self._told: object = None
        self._told_at = -float("inf")
        self._kept = self._promoted = False
        self._config_stamp = files.stamp(paths.config)
        self._config = settings.load(paths.config)
        last, live = status.read(paths.status), self._publisher.live
        self._demand = self._usual_demand(last)
        # Until they can be read.
        self._drained: Mapping[str, Drain] = earlier.drained(live)
        self._backends.configure(self._config, earlier.seen(self._config.servers, live, last))

    def run(self, *, stopped: Event, alive: Callable[[], None]) -> None:
        """Work until ``stopped``; ``alive`` is called after each round."""
        try:
            while not stopped.is_set():
                self.tick()
                alive()
                self._wake.wait(_TICK_SECONDS)
                self._wake.clear()
        finally:
            self.stop()

    def stop(self) -> None:
        """End all probes."""
        self._backends.stop()

    def tick(self) -> None:
        """Look, decide, publish where that is due, and tell."""
        began = time.time()
        self._read_config()
        self._read_drains()
        busy = self._connections()
        if busy is not None:
            self._demand.note(busy, self._clock())
        seen = self._backends.seen()
        servers = [names.located(one, seen[one.name].address) for one in self._config.servers]
        made = plan.make(
            servers,
            {name: one.state for name, one in seen.items()},
            drained=self._drained,
            max_removed_share=self._config.max_removed_share,
            promote=self._demand.surging,
            balance=self._config.balance,
        )
        if made.kept != self._kept:
            self._kept = made.kept
            log.warning("too few are ready: %s", "others are asked too" if made.kept else "no more")
        if made.promoted != self._promoted:
            self._promoted = made.promoted
            log.info("backups %s", "serve too" if made.promoted else "are backups again")
        self._publisher.offer(made, self._config)
        self._tell(servers, made, seen, began)

    def _usual_demand(self, last: PoolStatus | None) -> Demand:
        # The watchdog may have ended the last manager in the middle of a surge.
        surge = self._config.surge
        if last is None or time.time() - last.time > surge.quiet_seconds:
            return Demand(surge, now=self._clock())
        # None is usual as well, on an edge that was idle; without a figure nothing is known.
        baseline = None if last.connections is None else last.baseline
        return Demand(surge, now=self._clock(), baseline=baseline, surging=last.promoted)

    def _read_config(self) -> None:
        try:
            # The stamp first: what is written after it is read again.
            stamp = files.stamp(self._paths.config)
            if stamp == self._config_stamp:
                return
            self._config_stamp = stamp
            config = settings.load(self._paths.config)
        except (OSError, ConfigError) as error:
            self._note_problem("config", f"the pool stays as it was: {error}")
            return
        log.info("%s has changed and was read again", self._paths.config)
        self._problems.pop("config", None)
        self._config = config
        self._demand.bounds = config.surge
        self._backends.configure(config, {})

    def _read_drains(self) -> None:
        try:
            self._drained = self._drains.all()
        except OSError as error:
            self._note_problem("drains", f"who is drained stays as it was: {error}")
        else:
            self._problems.pop("drains", None)

    def _note_problem(self, of: str, text: str) -> None:
        if self._problems.get(of) != text:
            log.error("%s", text)
            self._problems[of] = text

    def _tell(
        self, servers: Sequence[Server], made: Plan, seen: Mapping[str, Seen], began: float
    ) -> None:
        problems = [*self._problems.values(), *filter(None, [self._publisher.error])]
        # Somebody may wait until a drained one is idle.
        idle = [seen[name].in_flight_at for name in self._drained if name in seen]
        now, news = self._clock(), (made, self._drained, problems, self._publisher.published, idle)
        if news == self._told and now - self._told_at < _TELL_SECONDS:
            return
        told = status.PoolStatus(
            time=began,
            published=self._publisher.published,
            error="; ".join(problems),
            kept=made.kept,
            promoted=made.promoted,
            connections=self._demand.current,
            baseline=self._demand.baseline,
            reloads=self._publisher.reloads,
            reload_seconds=self._config.reload_seconds,
            servers=tuple(
                status.of_server(
                    one, seen[one.name], out=place.reason, drain=self._drained.get(one.name)
                )
                for one, place in zip(servers, made.places, strict=True)
            ),
        )
        try:
            status.write(self._paths.status, told)
            self._metrics.write(self._paths.metrics, told)
        except OSError as error:
            # A full /run must not stop the pool.
            self._note_problem("status", f"the status cannot be written: {error}")
            return
        self._problems.pop("status", None)
        self._told, self._told_at = news, now
