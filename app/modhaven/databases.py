"""Checksum databases as this server uses them: to verify what it publishes, and mirrored.

The sources of a database are the chain's own ``sumdb/<name>/`` paths, then the database itself;
only the signature counts, not who delivers it. What is kept lies in the store, in the go command's
layout.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modhaven import modpath, sumdb
from modhaven.attempt import Attempt, AttemptError, Deadline
from modhaven.chain import ask, skip
from modhaven.globs import match_prefix_patterns
from modhaven.peers import Peers
from modhaven.protocol import Kind, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from modhaven.source import Source
    from modhaven.upstream import Turn, Upstream

log = logging.getLogger(__name__)
# Bytes; a tile has 8 KiB, a record some lines.
_LIMIT = 1 << 20
# Where a question was asked without a bound of its own.
_DEFAULT_SECONDS = 30.0


@dataclass(slots=True)
class Asking:
    """One question: its deadline, and what its fetches met, in the order they ended.

    ``siblings``: what they hold will do, where nobody else answers.
    """

    deadline: Deadline
    siblings: bool = True
    attempts: list[Attempt] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    # What failed in a first, hurried round, by upstream and path.
    failed: dict[tuple[str, str], AttemptError] = field(default_factory=dict)


# The client fetches tiles in threads of its own, each in a copy of the asking thread's context.
_asking: contextvars.ContextVar[Asking] = contextvars.ContextVar("asking")


@contextlib.contextmanager
def asking(deadline: Deadline, *, siblings: bool = True) -> Iterator[Asking]:
    """Bound what databases fetch in this block, and collect what happens."""
    token = _asking.set(Asking(deadline, siblings=siblings))
    try:
        yield _asking.get()
    finally:
        _asking.reset(token)


def _asked() -> Asking:
    """Return the question that is being asked."""
    return _asking.get(None) or Asking(Deadline.after(_DEFAULT_SECONDS))


class Databases:
    """The checksum databases, and which of them is asked about a module."""

    def __init__(self, databases: Sequence[Database], *, nosumdb: str, private: str) -> None:
        """Take them in order; modules that match ``nosumdb`` (GONOSUMDB) none is asked about.

        About those that match ``private`` only databases are asked whose own patterns name them.
        """
        self._databases = {database.name: database for database in databases}
        self._nosumdb = nosumdb
        self._private = private

    def __iter__(self) -> Iterator[Database]:
        """Give them in order."""
        return iter(self._databases.values())

    def get(self, name: str) -> Database | None:
        """Return the database called ``name``; it may be mirrored without verifying anything."""
        return self._databases.get(name)

    def may_hear(self, database: Database, module: str) -> bool:
        """Tell whether ``database`` may be asked about ``module`` by our clients."""
        return database.names(module) or not match_prefix_patterns(self._private, module)

    def for_module(self, module: str) -> sumdb.Client | None:
        """Return what verifies ``module``: the first that names it, else the first for all.

        None: nobody is to be asked about it.
        """
        if match_prefix_patterns(self._nosumdb, module):
            return None
        naming = next((one for one in self if one.names(module)), None)
        if naming is None and not match_prefix_patterns(self._private, module):
            naming = next((one for one in self if one.is_for_all), None)
        return naming.client if naming is not None else None


class Database:
    """One checksum database."""

    def __init__(
        self, *, name: str, key: str, mirrors: Sequence[Source], itself: Source | None,
        folder: Path, nosumdb: str, modules: str = "", peers: Peers | None = None
    ) -> None:  # fmt: skip
        """Ask ``mirrors`` below ``sumdb/<name>/``, then ``itself``; keep proven data in ``folder``.

        ``peers`` are asked for what they have proven, where those fail.

        ``modules`` are patterns of the only modules it verifies; modules that match ``nosumdb``
        are never looked up. Raises note.MalformedKeyError.
        """
        self.name = name
        self.is_for_all = not modules
        self._modules = modules
        # One that is for some modules only has no say about the log of all.
        sources = [(mirror, f"sumdb/{name}/") for mirror in mirrors if mirror.serves_all]
        if itself is not None:
            sources.append((itself, ""))
        self._upstreams = [upstream for upstream, _ in sources]
        self._peers = peers or Peers([], seconds=0.0)
        self.client = sumdb.Client(
            key,
            # All in a hurry, so that a black hole delays little; then the slow ones once more.
            [
                *(self._sibling(peer, early=True) for peer in self._peers.upstreams),
                *(self._fetcher(upstream, prefix, hurried=True) for upstream, prefix in sources),
                *(self._sibling(peer, early=False) for peer in self._peers.upstreams),
                *(self._fetcher(upstream, prefix, hurried=False) for upstream, prefix in sources),
            ],
            sumdb.DiskState(folder),
            nosumdb=nosumdb,
            on_failure=self._passed_over,
        )

    def names(self, module: str) -> bool:
        """Tell whether its own patterns name ``module``."""
        return match_prefix_patterns(self._modules, module)

    @property
    def forked(self) -> bool:
        """Whether it has signed two histories."""
        return bool(self.client.fork)

    def answer(self, request: Request) -> bytes:
        """Return the proven answer to a lookup, tile or tree head request; sumdb.SumdbError."""
        match request.kind:
            case Kind.SUMDB_LOOKUP:
                return self.client.lookup_answer(request.module, request.version)
            case Kind.SUMDB_TILE:
                return self.client.tile(request.path.removeprefix(f"sumdb/{request.sumdb}/"))
            case _:
                return self.client.latest()

    def known(self, request: Request) -> bytes | None:
        """Return what is known of a lookup, tile or tree head without asking anybody. OSError."""
        with contextlib.suppress(sumdb.SumdbError):
            return self.client.known(request.path.removeprefix(f"sumdb/{request.sumdb}/"))
        return None

    def meet(self, *, seconds: float) -> None:
        """Prove the siblings' tree heads, and keep what proves them: theirs and ours are one log.

        With that, what one of us has looked up can be proven to others while the database is down.
        """
        for name, head, _ in self._peers.say(f"sumdb/{self.name}/latest", limit=_LIMIT):
            try:
                if head != self.client.head:
                    with asking(Deadline.after(seconds), siblings=False):
                        self.client.learn(head)
            except sumdb.SecurityError as error:
                log.error("%s knows a tree head of %s: %s", name, self.name, error)  # noqa: TRY400 - says it all
            except sumdb.SumdbError as error:
                log.info("the tree head of %s that %s knows: %s", self.name, name, error)

    @property
    def _is_dark(self) -> bool:
        return all(upstream.breaker.is_open for upstream in self._upstreams)

    def _sibling(self, peer: Upstream, *, early: bool) -> sumdb.Fetch:
        """Return a source that is asked only where mirrors and the database itself fail.

        ``early``: before them, while they are known to be down.
        """

        def fetch(path: str) -> bytes:
            asked = _asked()
            failed = [asked.failed.get((upstream.name, path)) for upstream in self._upstreams]
            # They know nothing that the database, or a mirror of it, says is not there.
            no_use = any(error is not None and error.not_found for error in failed)
            wanted = asked.siblings and (self._is_dark or not early) and not no_use
            seconds = min(self._peers.seconds, asked.deadline.left)
            if not wanted or seconds <= 0 or (peer.name, path) in asked.failed:
                raise sumdb.Unreachable(f"{path}: {peer.name} is not asked")
            if not peer.breaker.lets_through():
                peer.probe_while_open()
                raise sumdb.Unreachable(f"{peer.name}: skipped, it failed just now")
            place = f"sumdb/{self.name}/{path}"
            try:
                body, _ = ask(
                    peer, lambda _turn: peer.small(place, limit=_LIMIT, seconds=seconds), []
                )
            except AttemptError as error:
                asked.failed[peer.name, path] = error
                raise sumdb.Unreachable(f"{peer.name}: {path}: {error}") from error
            asked.sources.append(peer.name)
            return body

        return fetch

    def _fetcher(self, upstream: Source, prefix: str, *, hurried: bool) -> sumdb.Fetch:
        def fetch(path: str) -> bytes:
            asked = _asked()
            before = asked.failed.get((upstream.name, path))
            if not hurried and (before is None or not before.hurried):
                raise _failure(upstream, path, before or AttemptError("gave nothing of use"))
            if not upstream.is_for(_module(path), private=False):
                raise sumdb.Unreachable(f"{upstream.name}: not asked about this module")
            if not self._is_dark and not upstream.breaker.lets_through():
                asked.attempts.append(skip(upstream))
                raise sumdb.Unreachable(f"{upstream.name}: skipped, it failed just now")
            sink = io.BytesIO()

            def use(turn: Turn) -> None:
                turn.fetch(prefix + path, sink, limit=_LIMIT, deadline=asked.deadline)

            try:
                ask(upstream, use, asked.attempts, hurried=hurried)
            except AttemptError as error:
                asked.failed[upstream.name, path] = error
                raise _failure(upstream, path, error) from error
            asked.sources.append(upstream.name)
            return sink.getvalue()

        return fetch

    def _passed_over(self, error: sumdb.SumdbError) -> None:
        if isinstance(error, sumdb.SecurityError):
            log.error("a source of a checksum database gave what it cannot prove: %s", error)


def _failure(upstream: Source, path: str, error: AttemptError) -> sumdb.SumdbError:
    kind = sumdb.NotFound if error.not_found else sumdb.Unreachable
    return kind(f"{upstream.name}: {path}: {error}")


def _module(path: str) -> str:
    """Return the module a path of the database tells about, empty where it is none."""
    if not path.startswith("lookup/"):
        return ""
    return modpath.unescape_path(path.removeprefix("lookup/").rpartition("@")[0])
