"""One request's way: the store, single flight, the chain, verification, publication.

Knows nothing of HTTP towards its callers: it returns Found or raises NotFoundError,
UnavailableError or store.base.StoreError.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modhaven import content, semver, sumdb
from modhaven.attempt import AttemptError
from modhaven.chain import ChainError
from modhaven.databases import asking
from modhaven.flight import Flights
from modhaven.globs import match_prefix_patterns
from modhaven.modpath import escape_version
from modhaven.peers import NoPeerError
from modhaven.protocol import Class, Kind, Request
from modhaven.recent import Recent
from modhaven.store.base import LockTimeoutError, Mutable, Stored, StoreError
from modhaven.verify import MismatchError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modhaven.attempt import Attempt, Deadline
    from modhaven.chain import Chain
    from modhaven.databases import Database
    from modhaven.peers import Peers
    from modhaven.settings import Freshness
    from modhaven.store.base import Store
    from modhaven.upstream import Turn
    from modhaven.verify import Verifier

log = logging.getLogger(__name__)
FROM_STORE = "store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An answer: a published file, or the bytes of one that may change.

    ``source`` is the upstream it came from just now, or ``store``; ``stale_seconds`` is the age of
    an answer that could not be refreshed.
    """

    source: str
    stored: Stored | None = None
    body: bytes = b""
    stale_seconds: int | None = None
    unverified: bool = False


class NotFoundError(Exception):
    """Every source says there is no such thing."""

    def __init__(self, message: str, attempts: list[Attempt]) -> None:
        """Keep the sentence and what each upstream said."""
        super().__init__(message)
        self.attempts = attempts


class UnavailableError(Exception):
    """It could not be found out: sources failed."""

    def __init__(
        self,
        message: str,
        attempts: list[Attempt],
        *,
        timed_out: bool = False,
        off: bool = False,
    ) -> None:
        """Keep the sentence and what each upstream said; ``off``: none was to be asked."""
        super().__init__(message)
        self.attempts = attempts
        self.timed_out = timed_out
        self.off = off


class Gateway:
    """Answers requests for modules and checksum database records."""

    def __init__(
        self,
        *,
        store: Store,
        modules: Chain,
        peers: Peers,
        databases: Mapping[str, Database],
        verifier: Verifier,
        freshness: Freshness,
        private: str = "",
    ) -> None:
        """Join the parts; ``databases`` has the checksum databases by name.

        ``peers`` are the sibling backends, of which only their stores are asked; of modules that
        match ``private`` no checksum database hears.
        """
        self._store = store
        self._modules = modules
        self._peers = peers
        self._databases = databases
        self._verifier = verifier
        self._freshness = freshness
        self._private = private
        self._flights: Flights[Found] = Flights()
        self._not_found: Recent[list[Attempt]] = Recent(seconds=freshness.not_found_seconds)

    def get(self, request: Request, deadline: Deadline) -> Found:
        """Return the answer to a request of class immutable or mutable.

        Raises NotFoundError, UnavailableError, StoreError.
        """
        if request.sumdb and request.sumdb not in self._databases:
            raise NotFoundError(f"checksum database {request.sumdb} is not configured", [])
        if request.sumdb and match_prefix_patterns(self._private, request.module):
            raise NotFoundError(f"{request.module} is private: no checksum database is asked", [])
        try:
            if request.cls is Class.IMMUTABLE:
                return self._immutable(request, deadline)
            return self._mutable(request, deadline)
        except UnavailableError as error:
            if error.off:
                raise NotFoundError(str(error), []) from None
            raise

    def serves_database(self, name: str) -> bool:
        """Tell whether the checksum database ``name`` is mirrored here."""
        return name in self._databases

    def _immutable(self, request: Request, deadline: Deadline) -> Found:
        stored = self._store.find(request.path)
        if stored is not None:
            return _from_store(stored)
        if request.cached_only:
            raise NotFoundError(f"{request.path} is not in the store", [])
        fetch = self._ask_database if request.sumdb else self._fetch_immutable
        return self._fly(request, deadline, fetch)

    def _fetch_immutable(self, request: Request, deadline: Deadline) -> Found:
        with self._store.lock(request.path, wait_seconds=deadline.left):
            stored = self._store.find(request.path)
            if stored is not None:
                return _from_store(stored)

            def use(turn: Turn) -> Stored:
                return self._fetch_and_publish(turn, request, deadline)

            with asking(deadline):
                self._verifier.look_ahead(request)
                fetched, source = self._walk(request, use)
        return Found(source=source, stored=fetched, unverified=fetched.unverified)

    def _walk(self, request: Request, use: Callable[[Turn], Stored]) -> tuple[Stored, str]:
        """Ask the chain and, when it failed, the siblings; the chain's failure is what is told.

        While every upstream is known to be down the siblings are asked first: they answer.
        """
        dark = self._modules.is_dark(request.module)
        if dark:
            with contextlib.suppress(NoPeerError):
                return self._peers.walk(request.path, use)
        try:
            return self._modules.walk(use, module=request.module)
        except ChainError as error:
            if dark or (error.not_found and not error.off):
                raise
            try:
                return self._peers.walk(request.path, use)
            except NoPeerError:
                raise error from None

    def _fetch_and_publish(self, turn: Turn, request: Request, deadline: Deadline) -> Stored:
        with self._store.stage(request.path) as staged:
            turn.fetch(
                request.path,
                staged.file,
                limit=content.LIMITS[request.kind],
                deadline=deadline,
            )
            if request.kind not in (Kind.ZIP, Kind.MOD):
                staged.file.seek(0)
                _check(request, staged.file.read())
            try:
                verdict = self._verifier.verify(request, staged.file)
            except MismatchError as error:
                kept = staged.quarantine(f"{request.path} from {turn.name}: {error}")
                log.error(  # noqa: TRY400 - an operator needs the hashes, not the stack
                    "%s from %s is quarantined as %s: %s",
                    request.path,
                    turn.name,
                    kept,
                    error,
                )
                raise AttemptError(f"wrong bytes: {error}") from error
            return staged.publish(unverified=verdict.unproven)

    def _mutable(self, request: Request, deadline: Deadline) -> Found:
        known = self._store.get_mutable(request.path)
        if known is not None and known.age < self._freshness.mutable_seconds:
            return Found(source=FROM_STORE, body=known.body)
        if request.cached_only:
            found = self._stale(request, known)
            if found is None:
                raise NotFoundError(f"{request.path} is not in the store", [])
            return found
        try:
            return self._fly(request, deadline, self._fetch_mutable)
        except UnavailableError:
            found = self._stale(request, known)
            if found is None:
                raise
            return found

    def _fetch_mutable(self, request: Request, deadline: Deadline) -> Found:
        if request.sumdb:
            found = self._ask_database(request, deadline)
            self._keep(request, found)
            return found

        def use(turn: Turn) -> bytes:
            sink = io.BytesIO()
            limit = content.LIMITS[request.kind]
            turn.fetch(request.path, sink, limit=limit, deadline=deadline)
            _check(request, sink.getvalue())
            return sink.getvalue()

        known = self._store.get_mutable(request.path)
        # With an answer at hand, though stale, nobody waits long for what is known to be down.
        stale = known is not None and known.age <= self._freshness.stale_max_seconds
        persist = not (stale and self._modules.is_dark(request.module))
        body, source = self._modules.walk(use, module=request.module, hedged=True, persist=persist)
        found = Found(source=source, body=body)
        self._keep(request, found)
        return found

    def _keep(self, request: Request, found: Found) -> None:
        try:
            self._store.put_mutable(request.path, found.body, found.source)
        except StoreError as error:
            # The answer is good without being kept; readiness reports the store.
            log.warning("%s is not kept: %s", request.path, error)

    def _ask_database(self, request: Request, deadline: Deadline) -> Found:
        """Return a proven answer; the database's client keeps lookups and tiles in the store."""
        with asking(deadline) as asked:
            try:
                body = self._databases[request.sumdb].answer(request)
            except (sumdb.NotFound, sumdb.Skipped, ValueError) as error:
                raise NotFoundError(f"{request.path}: {error}", asked.attempts) from None
            except sumdb.SumdbError as error:
                timed_out = any(attempt.timed_out for attempt in asked.attempts)
                message = f"{request.path}: {error}"
                raise UnavailableError(message, asked.attempts, timed_out=timed_out) from None
        return Found(source=asked.sources[-1] if asked.sources else FROM_STORE, body=body)

    def _stale(self, request: Request, known: Mutable | None) -> Found | None:
        """Return what can be said without any upstream, labelled with its age."""
        if known is not None and known.age <= self._freshness.stale_max_seconds:
            return Found(source=FROM_STORE, body=known.body, stale_seconds=round(known.age))
        if request.kind not in (Kind.LIST, Kind.LATEST):
            return None
        versions = self._store.versions(request.escaped_module)
        best = semver.latest(versions)
        if best is None:
            return None
        newest = self._store.find(f"{request.escaped_module}/@v/{escape_version(best)}.info")
        if newest is None:
            return None
        age = round(max(0.0, time.time() - newest.path.stat().st_mtime))
        if request.kind is Kind.LATEST:
            return Found(source=FROM_STORE, body=newest.path.read_bytes(), stale_seconds=age)
        tagged = sorted((v for v in versions if not semver.is_pseudo(v)), key=semver.sort_key)
        body = "".join(f"{version}\n" for version in tagged).encode()
        return Found(source=FROM_STORE, body=body, stale_seconds=age)

    def _fly(
        self, request: Request, deadline: Deadline, fetch: Callable[[Request, Deadline], Found]
    ) -> Found:
        """Run ``fetch`` once for all who ask at this time; turn its failures into ours."""
        remembered = self._not_found.get(request.path)
        if remembered is not None:
            raise NotFoundError(f"{request.path}: no upstream has it", remembered)
        try:
            return self._flights.do(
                request.path, lambda: fetch(request, deadline), wait_seconds=deadline.left
            )
        except ChainError as error:
            if error.off:
                # Not an upstream's word: what the store can say about lists still counts.
                message = f"{request.path} is not in the store, and {error.reason}"
                raise UnavailableError(message, [], off=True) from None
            if error.not_found:
                self._not_found.put(request.path, error.attempts)
                message = f"{request.path}: no upstream has it"
                raise NotFoundError(message, error.attempts) from None
            raise UnavailableError(
                f"{request.path}: no upstream could answer",
                error.attempts,
                timed_out=error.timed_out,
            ) from None
        except StoppedError as error:
            raise UnavailableError(str(error), []) from None
        except (LockTimeoutError, TimeoutError):
            raise UnavailableError(
                f"{request.path}: another request has been fetching it for too long",
                [],
                timed_out=True,
            ) from None


def _from_store(stored: Stored) -> Found:
    return Found(source=FROM_STORE, stored=stored, unverified=stored.unverified)


def _check(request: Request, body: bytes) -> None:
    try:
        content.check(request, body)
    except content.RejectedError as error:
        raise AttemptError(str(error)) from error
