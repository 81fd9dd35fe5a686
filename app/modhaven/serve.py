"""The server: the parts joined from the configuration, inside an embedded gunicorn.

gunicorn takes its sockets from systemd when LISTEN_FDS is set, and tells systemd when it is ready.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from gunicorn.app.base import BaseApplication

from modhaven.chain import Chain
from modhaven.chain_spec import UpstreamSpec
from modhaven.gateway import Gateway
from modhaven.store.disk import DiskStore
from modhaven.upstream import Upstream, make_session
from modhaven.verify import Verifier
from modhaven.wsgi import App

if TYPE_CHECKING:
    from modhaven.config import Config, SumDB

# A worker whose main loop is silent this long is replaced; requests run in threads beside it.
_WORKER_SILENCE_SECONDS = 60
# Longer than the edge keeps idle connections, so that the edge closes them, not we.
_KEEPALIVE_SECONDS = 75


def build(config: Config) -> App:
    """Join the parts for one worker process; StoreError when the store cannot be opened."""
    session = make_session(ca_file=config.ca_file, pool_size=config.threads)

    def upstream(spec: UpstreamSpec, *, is_database: bool = False) -> Upstream:
        return Upstream(
            spec,
            session=session,
            timeouts=config.upstream_timeouts,
            retries=config.upstream_retries,
            breaker=config.breaker,
            is_database=is_database,
        )

    sources = [upstream(spec) for spec in config.upstreams]
    mirrors = [source for source in sources if not source.is_off]

    def database_chain(database: SumDB) -> Chain:
        spec = UpstreamSpec(name=database.name, url=database.url, falls_through=True)
        # Records prove themselves: any mirror will do, and the database itself comes last.
        own = [upstream(spec, is_database=True)] if mirrors else []
        return Chain([*mirrors, *own], always_fall_through=True)

    store = DiskStore(config.store.path, min_free_bytes=config.store.min_free_bytes)
    gateway = Gateway(
        store=store,
        modules=Chain(sources),
        databases={database.name: database_chain(database) for database in config.sumdb},
        verifier=Verifier(None, nosumdb=config.nosumdb),
        freshness=config.freshness,
    )
    return App(config=config, gateway=gateway, store=store)


class Server(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """gunicorn with threads, configured by us alone."""

    def __init__(self, config: Config) -> None:
        """Take the configuration; ``run()`` serves until a signal ends it."""
        self._modhaven = config
        super().__init__()

    def load_config(self) -> None:
        """Set what gunicorn reads (gunicorn's hook)."""
        config = self._modhaven
        settings = {
            "bind": [config.listen],
            "worker_class": "gthread",
            "workers": config.workers,
            "threads": config.threads,
            "graceful_timeout": config.graceful_timeout_seconds,
            "timeout": _WORKER_SILENCE_SECONDS,
            "keepalive": _KEEPALIVE_SECONDS,
            "umask": 0o027,
            "proc_name": "modhaven",
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> App:
        """Build the application in a worker (gunicorn's hook)."""
        return build(self._modhaven)


def run(config: Config) -> None:
    """Serve until SIGTERM; requests under way may finish within graceful_timeout_seconds."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    Server(config).run()
