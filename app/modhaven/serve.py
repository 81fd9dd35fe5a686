"""The server: the parts joined from the configuration, inside an embedded gunicorn.

gunicorn takes its sockets from systemd when LISTEN_FDS is set, and tells systemd when it is ready.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication

from modhaven import metrics
from modhaven.board import Board
from modhaven.bulkhead import Bulkheads
from modhaven.chain import Chain
from modhaven.chain_spec import UpstreamSpec
from modhaven.checks import ConfigError
from modhaven.chore import Chore
from modhaven.databases import Database, Databases
from modhaven.direct import Direct
from modhaven.direct_shared import Shared
from modhaven.gateway import Gateway
from modhaven.peers import Peers
from modhaven.reverify import Reverifier
from modhaven.status import Status
from modhaven.store.disk import DiskStore
from modhaven.transport import make_session
from modhaven.upstream import Upstream
from modhaven.verify import Verifier
from modhaven.wsgi import App

if TYPE_CHECKING:
    from collections.abc import Callable

    from modhaven.config import Config
    from modhaven.settings import Peer, SumDB
    from modhaven.source import Source
    from modhaven.store.base import Store

log = logging.getLogger(__name__)

# A worker whose main loop is silent this long is replaced; requests run in threads beside it.
_WORKER_SILENCE_SECONDS = 60
# Longer than the edge keeps idle connections, so that the edge closes them, not we.
_KEEPALIVE_SECONDS = 75
# Counting a large store keeps a disk busy for a while.
_USAGE_SECONDS = 300.0
# How old the proofs of siblings may be that are lost when the database goes down.
_MEET_SECONDS = 60.0
UMASK = 0o027


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What one process works with; ``verifier`` judges files that are already published."""

    app: App
    store: DiskStore
    verifier: Verifier
    databases: Databases


def build(config: Config, board: Board | None = None) -> App:
    """Return the application of one worker process; StoreError."""
    return join(config, board).app


def join(config: Config, board: Board | None = None) -> Parts:
    """Join the parts for one process; StoreError when the store cannot be opened.

    ``board`` is the one that all workers share.
    """
    board = board or Board()

    def upstream(spec: UpstreamSpec) -> Upstream:
        return Upstream(
            spec,
            session=make_session(
                ca_file=config.ca_file, pool_size=config.limits.threads, spec=spec
            ),
            timeouts=config.upstream_timeouts,
            retries=config.upstream_retries,
            breaker=config.breaker,
            place=board.place(spec.url),
        )

    shared = Shared(config)
    sources: list[Source] = [
        Direct(spec, shared) if spec.is_direct else upstream(spec) for spec in config.upstreams
    ]
    mirrors = [source for source in sources if not source.is_off]
    store = DiskStore(
        config.store.path,
        min_free_bytes=config.store.min_free_bytes,
        quarantine_max_bytes=config.store.quarantine_max_bytes,
    )

    def database(spec: SumDB) -> Database:
        itself = UpstreamSpec(
            name=spec.name,
            url=spec.url,
            falls_through=True,
            proxy=spec.proxy,
            ca_file=spec.ca_file,
            credentials_file=spec.credentials_file,
        )
        named = bool(spec.modules)
        return Database(
            name=spec.name,
            key=spec.key,
            # No mirror hears of modules that have a database of their own.
            mirrors=[] if named else mirrors,
            # With upstreams off, nobody outside is asked anything.
            itself=upstream(itself) if mirrors else None,
            folder=store.folder(f"sumdb/{spec.name}"),
            nosumdb=config.nosumdb if named else _join(config.nosumdb, config.private),
            modules=spec.modules,
            peers=peers,
        )

    def peer(spec: Peer) -> Upstream:
        return Upstream(
            # Only the peer's store is asked: peers never ask peers.
            UpstreamSpec(name=spec.name, url=f"{spec.url}/cached-only", falls_through=True),
            session=peer_session,
            timeouts=config.upstream_timeouts,
            retries=0,
            breaker=config.breaker,
        )

    tls = config.peer_tls
    peer_session = make_session(
        ca_file=tls.ca_file if tls else config.ca_file,
        pool_size=config.limits.threads,
        certificate=(tls.certificate_file, tls.key_file) if tls else None,
    )
    siblings = [peer(spec) for spec in config.peers]
    peers = Peers(siblings, seconds=config.peer_seconds)
    databases = Databases(
        [database(spec) for spec in config.sumdb], nosumdb=config.nosumdb, private=config.private
    )
    bulkheads = Bulkheads(config.limits)

    def verifier(*, required: bool) -> Verifier:
        return Verifier(databases.for_module, pins=store.pins, required=required)

    gateway = Gateway(
        store=store,
        modules=Chain(
            sources, private=config.private, hedge=config.hedge, rounds=config.upstream_rounds
        ),
        peers=peers,
        databases=databases,
        verifier=verifier(required=config.require_verified),
        freshness=config.freshness,
        bulkheads=bulkheads,
    )
    status = Status(
        store=store,
        upstreams=mirrors,
        peers=siblings,
        databases=databases,
        bulkheads=bulkheads,
        drain_file=config.drain_file,
    )
    app = App(config=config, gateway=gateway, status=status)
    return Parts(app=app, store=store, verifier=verifier(required=False), databases=databases)


def _join(*patterns: str) -> str:
    return ",".join(filter(None, patterns))


class Server(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """gunicorn with threads, configured by us alone."""

    def __init__(self, load: Callable[[], Config]) -> None:
        """Take what reads the configuration, now and at each SIGHUP."""
        self._load = load
        self._modhaven = load()
        # Made here, so that every worker inherits it.
        self._board = Board()
        super().__init__()

    def load_config(self) -> None:
        """Set what gunicorn reads (gunicorn's hook, at the start and at SIGHUP)."""
        try:
            self._modhaven = self._load()
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)  # noqa: TRY400 - a sentence
        config = self._modhaven
        settings = {
            "bind": [config.listen],
            "worker_class": "gthread",
            "workers": config.workers,
            "threads": config.limits.threads,
            "graceful_timeout": config.graceful_timeout_seconds,
            "timeout": _WORKER_SILENCE_SECONDS,
            "keepalive": _KEEPALIVE_SECONDS,
            "umask": UMASK,
            # A worker shows that it lives by touching a file here, at each turn of its loop: not on
            # a disk, where that waits for the store's syncs.
            "worker_tmp_dir": "/dev/shm",  # noqa: S108 - its file has a name that is taken once
            # By default a client on this host may set SCRIPT_NAME: another path, or a 500.
            "forwarder_headers": "",
            "proc_name": "modhaven",
            "loglevel": "warning",
            "control_socket_disable": True,
            "child_exit": _forget_worker,
            "on_exit": _remove_metrics,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> App:
        """Build the application in a worker (gunicorn's hook)."""
        parts = join(self._modhaven, self._board)
        Reverifier(store=parts.store, verifier=parts.verifier).start()
        _count_usage(parts.store)
        if self._modhaven.peers:
            _meet_siblings(parts.store, parts.databases)
        return parts.app


def _count_usage(store: Store) -> None:
    def turn() -> bool:
        usage = store.usage()
        metrics.store_files.set(usage.files)
        metrics.store_bytes.set(usage.size)
        metrics.store_unverified_files.set(usage.unverified)
        return True

    Chore("usage/", store=store, turn=turn, pause_seconds=_USAGE_SECONDS).start()


def _meet_siblings(store: Store, databases: Databases) -> None:
    def turn() -> bool:
        for database in databases:
            database.meet(seconds=_MEET_SECONDS)
        return True

    Chore("heads/", store=store, turn=turn, pause_seconds=_MEET_SECONDS).start()


def _forget_worker(_arbiter: object, worker: Any) -> None:
    """Drop the gauges of a worker that has ended; its counters stay in the sums."""
    metrics.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _remove_metrics(_arbiter: object) -> None:
    shutil.rmtree(os.environ.get(metrics.SHARED, ""), ignore_errors=True)


def run(load: Callable[[], Config]) -> None:
    """Serve until SIGTERM; requests under way may finish within graceful_timeout_seconds.

    ``load`` reads the configuration, again at SIGHUP. Raises ConfigError the first time.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    Server(load).run()
