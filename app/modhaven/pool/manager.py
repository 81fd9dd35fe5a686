"""The daemon: joins the inventory with what it sees; nginx asks whom it should, and no others."""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modhaven.checks import ConfigError
from modhaven.pool import nginx, plan, settings, status
from modhaven.pool.backends import Backends
from modhaven.pool.drains import Drain, Drains
from modhaven.pool.metrics import Metrics
from modhaven.pool.nginx import NginxError
from modhaven.pool.surge import Demand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modhaven.pool.plan import Plan
    from modhaven.pool.settings import PoolConfig

log = logging.getLogger(__name__)
_TICK_SECONDS = 0.25
_RETRY_SECONDS = 5.0
# As upstream.conf.j2 writes them: "server …;  # backend1", with ": reason" where it is not asked.
_LISTED = re.compile(r"^\s*server [^#]*;  # (?P<name>[^\s:]+)(?P<out>:)?", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where everything is; the defaults are a deployed edge's."""

    config: Path = Path("/etc/modhaven/pool.yml")
    template: Path = Path("/etc/modhaven/upstream.conf.j2")
    nginx: Path = Path("/etc/nginx")
    nginx_pid: Path = Path("/run/nginx.pid")
    drained: Path = Path("/var/lib/modhaven-pool/drained")
    status: Path = Path("/run/modhaven-pool/status.json")
    metrics: Path = Path("/run/modhaven-pool/metrics.prom")


def initial(paths: Paths) -> bool:
    """Give nginx a pool of everyone where it has none yet; tell whether it was needed.

    Raises ConfigError, NginxError.
    """
    server = nginx.Nginx(paths.nginx, paths.nginx_pid)
    config = settings.load(paths.config)
    if server.live():
        return False
    everyone = {one.name: "up" for one in config.servers}
    whole = plan.make(
        config.servers, everyone, drained=(), max_removed_share=config.max_removed_share,
        promote=False,
    )  # fmt: skip
    server.publish(nginx.render(paths.template, whole, config.limits))
    return True


class Manager:
    """Everything the daemon does between two moments."""

    def __init__(self, paths: Paths, *, connections: Callable[[], int | None]) -> None:
        """Read the configuration; ``connections`` tells how busy this edge is. ConfigError."""
        self._paths = paths
        self._connections = connections
        self._nginx = nginx.Nginx(paths.nginx, paths.nginx_pid)
        self._drains = Drains(paths.drained)
        self._metrics = Metrics()
        self._wake = threading.Event()
        self._backends = Backends(self._wake.set)
        self._read_at = 0
        self._text = self._nginx.live()
        self._published_at = -float("inf")
        self._not_before = 0.0
        self._error = ""
        self._reloads = 0
        self._rendered: tuple[Plan, int] | None = None
        self._wanted = ""
        self._config = self._load()
        listed = {found["name"]: not found["out"] for found in _LISTED.finditer(self._text)}
        self._backends.configure(
            self._config, known_up=[name for name, asked in listed.items() if asked]
        )
        self._demand = Demand(self._config.surge, now=time.monotonic())

    def run(self, *, stopped: threading.Event, alive: Callable[[], None]) -> None:
        """Work until ``stopped``; ``alive`` is called after each round."""
        try:
            while not stopped.is_set():
                self.tick(time.monotonic())
                alive()
                self._wake.wait(_TICK_SECONDS)
                self._wake.clear()
        finally:
            self._backends.stop()

    def wake(self) -> None:
        """Begin the next round at once."""
        self._wake.set()

    def tick(self, now: float) -> None:
        """Look, decide, publish where that is due, and tell."""
        self._read_again()
        drained = self._drains.all()
        seen = self._connections()
        if seen is not None and self._demand.note(seen, now):
            log.info("backups %s", "serve too" if self._demand.surging else "are backups again")
        made = plan.make(
            self._config.servers,
            self._backends.states(),
            drained=drained,
            max_removed_share=self._config.max_removed_share,
            promote=self._demand.surging,
        )
        self._publish_if_due(made, now)
        self._tell(made, drained)

    def _render(self, made: Plan) -> str:
        """Return the text of a plan; it is made anew where the plan or the template has changed."""
        key = (made, self._paths.template.stat().st_mtime_ns)
        if key != self._rendered:
            self._wanted = nginx.render(self._paths.template, made, self._config.limits)
            self._rendered = key
        return self._wanted

    def _load(self) -> PoolConfig:
        # The moment first: what is written after it is read again.
        self._read_at = self._paths.config.stat().st_mtime_ns if self._paths.config.exists() else 0
        return settings.load(self._paths.config)

    def _read_again(self) -> None:
        try:
            if self._paths.config.stat().st_mtime_ns == self._read_at:
                return
            self._config = self._load()
        except (OSError, ConfigError) as error:
            self._error = f"the pool stays as it was: {error}"
            return
        log.info("%s has changed and was read again", self._paths.config)
        self._error = ""
        self._rendered = None
        self._backends.configure(self._config)
        self._demand = Demand(self._config.surge, now=time.monotonic())

    def _publish_if_due(self, made: Plan, now: float) -> None:
        try:
            text = self._render(made)
            if text == self._text:
                return
            if now < max(self._published_at + self._config.reload_seconds, self._not_before):
                return
            self._reloads += self._nginx.publish(text)
        except (NginxError, OSError) as error:
            if str(error) != self._error:
                log.error("nginx keeps the pool it has: %s", error)  # noqa: TRY400 - a sentence
            self._error = str(error)
            self._not_before = now + _RETRY_SECONDS
            self._metrics.failures.inc()
            return
        self._text, self._published_at, self._error = text, now, ""
        self._metrics.reloads.inc()
        log.info("nginx asks %s", ", ".join(p.server.name for p in made.places if p.asked))

    def _tell(self, made: Plan, drained: Mapping[str, Drain]) -> None:
        servers = []
        for configured, place in zip(self._config.servers, made.places, strict=True):
            name = configured.name
            health = self._backends.health(name)
            kept = place.asked and health.state == "down"
            drain = drained.get(name)
            servers.append(
                status.ServerStatus(
                    name=name,
                    address=f"{configured.address}:{configured.port}",
                    weight=configured.weight,
                    backup=configured.backup,
                    state=place.reason or ("kept" if kept else health.state),
                    asked=place.asked,
                    since=drain.since if drain else health.since,
                    error=drain.reason if drain else health.error,
                    in_flight=health.in_flight,
                )
            )
        told = status.PoolStatus(
            time=time.time(),
            published=self._wanted == self._text,
            error=self._error,
            kept=made.kept,
            promoted=made.promoted,
            connections=self._demand.current,
            baseline=self._demand.baseline,
            reloads=self._reloads,
            servers=tuple(servers),
        )
        status.write(self._paths.status, told)
        self._metrics.write(self._paths.metrics, told)
