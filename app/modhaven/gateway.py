"""One request's way: the store, single flight, the chain, verification, publication.

Knows nothing of HTTP towards its callers: it returns Found or raises NotFoundError,
UnavailableError, BusyError or store.base.StoreError.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from typing import TYPE_CHECKING, TypeVar

from modhaven import content, held, metrics, sumdb
from modhaven.answers import FROM_STORE, BusyError, Found, NotFoundError, UnavailableError
from modhaven.attempt import AttemptError
from modhaven.bulkhead import FullError
from modhaven.chain import ChainError
from modhaven.databases import asking
from modhaven.flight import Flights
from modhaven.hedge import race
from modhaven.peers import NoPeerError
from modhaven.protocol import Class, Kind, Request
from modhaven.recent import Recent
from modhaven.store.base import LockTimeoutError, PurgedError, Stored, StoreError
from modhaven.verify import MismatchError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from modhaven.attempt import Attempt, Deadline
    from modhaven.bulkhead import Bulkheads
    from modhaven.chain import Chain
    from modhaven.databases import Database, Databases
    from modhaven.peers import Peers
    from modhaven.settings import Freshness
    from modhaven.store.base import Store
    from modhaven.upstream import Turn
    from modhaven.verify import Verifier

T = TypeVar("T")

log = logging.getLogger(__name__)
# Who has a slightly old answer at hand waits no longer than this for a new one.
_REVALIDATION_SECONDS = 0.5


class Gateway:
    """Answers requests for modules and checksum database records."""

    def __init__(
        self,
        *,
        store: Store,
        modules: Chain,
        peers: Peers,
        databases: Databases,
        verifier: Verifier,
        freshness: Freshness,
        bulkheads: Bulkheads,
    ) -> None:
        """Join the parts; ``peers`` are the sibling backends, whose stores alone are asked."""
        self._store = store
        self._modules = modules
        self._peers = peers
        self._databases = databases
        self._verifier = verifier
        self._freshness = freshness
        self._bulkheads = bulkheads
        self._flights: Flights[Found] = Flights()
        self._not_found: Recent[list[Attempt]] = Recent(seconds=freshness.not_found_seconds)

    def get(self, request: Request, deadline: Deadline) -> Found:
        """Return the answer to a request of class immutable or mutable.

        Raises NotFoundError, UnavailableError, BusyError, StoreError.
        """
        if request.sumdb:
            database = self._database(request)
            if request.cached_only:
                return _known_to(database, request)
        try:
            if request.cls is Class.IMMUTABLE:
                return self._immutable(request, deadline)
            return self._mutable(request, deadline)
        except UnavailableError as error:
            if error.off:
                raise NotFoundError(str(error), []) from None
            raise

    def _database(self, request: Request) -> Database:
        """Return the database that ``request`` names; NotFoundError when it is not to be asked."""
        database = self._databases.get(request.sumdb)
        if database is None:
            raise NotFoundError(f"checksum database {request.sumdb} is not configured", [])
        if not self._databases.may_hear(database, request.module):
            raise NotFoundError(f"{request.module} is private: {request.sumdb} is not asked", [])
        return database

    def serves_database(self, name: str) -> bool:
        """Tell whether the checksum database ``name`` is mirrored here."""
        return self._databases.get(name) is not None

    def _immutable(self, request: Request, deadline: Deadline) -> Found:
        stored = self._store.find(request.path)
        if stored is not None:
            return _from_store(stored)
        if request.cached_only:
            raise NotFoundError(f"{request.path} is not in the store", [])
        fetch = self._ask_database if request.sumdb else self._fetch_immutable
        return self._fly(request, deadline, fetch)

    def _fetch_immutable(self, request: Request, deadline: Deadline) -> Found:
        began = time.monotonic()
        with self._store.lock(request.path, wait_seconds=deadline.left):
            stored = self._store.find(request.path)
            if stored is not None:
                # Another process has fetched it meanwhile.
                metrics.flight_wait_seconds.observe(time.monotonic() - began)
                return _from_store(stored)

            def use(turn: Turn) -> Stored:
                return self._fetch_and_publish(turn, request, deadline)

            with asking(deadline):
                self._verifier.look_ahead(request)
                fetched, source = _again_if_purged(lambda: self._walk(request, use))
        return Found(source=source, stored=fetched, unverified=fetched.unverified)

    def _walk(self, request: Request, use: Callable[[Turn], Stored]) -> tuple[Stored, str]:
        """Ask the chain and, when it failed, the siblings; the chain's failure is what is told.

        The siblings are asked before the chain is asked again, and first of all while every
        upstream is known to be down: they answer.
        """
        asked = False

        def siblings() -> tuple[Stored, str] | None:
            nonlocal asked
            asked = True
            with contextlib.suppress(NoPeerError):
                return self._peers.walk(request.path, use)
            return None

        found = siblings() if self._modules.is_dark(request.module) else None
        if found is not None:
            return found
        try:
            return self._modules.walk(
                use, module=request.module, before_again=None if asked else siblings
            )
        except ChainError as error:
            if asked or (error.not_found and not error.off):
                raise
            found = siblings()
            if found is None:
                raise
            return found

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
        last = self._store.purges.last(request.path)
        known = self._store.get_mutable(request.path)
        if known is not None and known.age < self._freshness.mutable_seconds:
            return Found(source=FROM_STORE, body=known.body)
        max_age = self._freshness.stale_max_seconds
        if known is not None and known.age < self._freshness.usable_seconds:
            found = self._revalidated(request, deadline)
            if found is not None:
                return found
            if self._store.purges.last(request.path) == last:
                return held.as_it_is(known)
        if request.cached_only:
            found = held.stale(self._store, request, known, max_age=max_age)
            if found is None:
                raise NotFoundError(f"{request.path} is not in the store", [])
            return found
        try:
            return self._fly(request, deadline, self._fetch_mutable)
        except (UnavailableError, BusyError):
            if self._store.purges.last(request.path) != last:
                known = None
            found = held.stale(self._store, request, known, max_age=max_age)
            if found is None:
                raise
            return found

    def _revalidated(self, request: Request, deadline: Deadline) -> Found | None:
        """Return a new answer if it comes quickly; else it is kept for the next, and None."""
        if request.cached_only or self._flights.is_under_way(self._flight(request)):
            # Who asks already keeps the answer for all; a crowd needs no threads of its own.
            return None
        won = race(
            [lambda: self._fly(request, deadline, self._fetch_mutable)],
            [0.0],
            passes=(UnavailableError, BusyError),
            seconds=_REVALIDATION_SECONDS,
        )
        return None if won is None else won[1]

    def _fetch_mutable(self, request: Request, deadline: Deadline) -> Found:
        """Ask upstreams, a database's or the chain's; then the siblings, where nothing was kept."""
        if request.sumdb:
            return self._ask_and_keep(request, lambda: self._ask_database(request, deadline))
        since = self._store.purges.last(request.path)
        known = self._store.get_mutable(request.path)
        max_age = self._freshness.stale_max_seconds
        kept = known is not None and known.age <= max_age
        # With an answer at hand, though stale, nobody waits long for what is known to be down, nor
        # until mirrors that have all failed are well again.
        dark = self._modules.is_dark(request.module)
        found, looked = None, False
        if dark and not kept:
            with contextlib.suppress(StoreError):
                found, looked = held.anywhere(self._store, self._peers, request), True
        at_hand = kept or (found is not None and (found.stale_seconds or 0) <= max_age)
        persist, again = not (at_hand and dark), not at_hand
        try:
            return self._ask_and_keep(
                request,
                lambda: self._ask_upstreams(request, deadline, persist=persist, again=again),
            )
        except ChainError as error:
            if kept or (error.not_found and not error.off):
                raise
            if not looked or self._store.purges.last(request.path) != since:
                found = held.anywhere(self._store, self._peers, request)
            if found is None:
                raise
            return found

    def _ask_and_keep(self, request: Request, ask: Callable[[], Found]) -> Found:
        return _again_if_purged(lambda: self._kept(request, ask))

    def _kept(self, request: Request, ask: Callable[[], Found]) -> Found:
        since = self._store.purges.last(request.path)
        found = ask()
        try:
            self._store.put_mutable(request.path, found.body, found.source, since=since)
        except StoreError as error:
            # The answer is good without being kept; readiness reports the store.
            log.warning("%s is not kept: %s", request.path, error)
        return found

    def _ask_upstreams(
        self, request: Request, deadline: Deadline, *, persist: bool, again: bool
    ) -> Found:
        def use(turn: Turn) -> bytes:
            sink = io.BytesIO()
            limit = content.LIMITS[request.kind]
            turn.fetch(request.path, sink, limit=limit, deadline=deadline)
            _check(request, sink.getvalue())
            return sink.getvalue()

        body, source = self._modules.walk(
            use, module=request.module, hedged=True, persist=persist, again=again
        )
        return Found(source=source, body=body)

    def _ask_database(self, request: Request, deadline: Deadline) -> Found:
        """Return a proven answer; the database's client keeps lookups and tiles in the store."""
        # A tree head is asked for to have a new one.
        siblings = request.kind is not Kind.SUMDB_LATEST
        with asking(deadline, siblings=siblings) as asked:
            try:
                body = self._database(request).answer(request)
            except (sumdb.NotFound, sumdb.Skipped, ValueError) as error:
                raise NotFoundError(f"{request.path}: {error}", asked.attempts) from None
            except sumdb.SumdbError as error:
                timed_out = any(attempt.timed_out for attempt in asked.attempts)
                message = f"{request.path}: {error}"
                raise UnavailableError(message, asked.attempts, timed_out=timed_out) from None
        return Found(source=asked.sources[-1] if asked.sources else FROM_STORE, body=body)

    def _flight(self, request: Request) -> str:
        """Return what a flight is for: who asks after a purge joins none from before it.

        Nor are they told "not found" because of one.
        """
        return f"{request.path} {self._store.purges.last(request.path, negative=True)}"

    def _fly(
        self, request: Request, deadline: Deadline, fetch: Callable[[Request, Deadline], Found]
    ) -> Found:
        """Run ``fetch`` once for all who ask at this time; turn its failures into ours."""
        flight = self._flight(request)
        remembered = self._not_found.get(flight)
        if remembered is not None:
            raise NotFoundError(f"{request.path}: no upstream has it", remembered)
        try:
            with self._bulkheads.place(request):
                return self._flights.do(
                    flight, lambda: fetch(request, deadline), wait_seconds=deadline.left
                )
        except FullError as error:
            raise BusyError(f"{request.path}: {error}") from None
        except ChainError as error:
            if error.off:
                # Not an upstream's word: what the store can say about lists still counts.
                message = f"{request.path} is not in the store, and {error.reason}"
                raise UnavailableError(message, [], off=True) from None
            if error.not_found:
                if self._flight(request) != flight:
                    # Whoever said so was asked before a purge.
                    return self._fly(request, deadline, fetch)
                self._not_found.put(flight, error.attempts)
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


def _again_if_purged(ask: Callable[[], T]) -> T:
    """Return what ``ask`` returns; what comes from before a purge is asked for again."""
    while True:
        try:
            return ask()
        except PurgedError as error:
            log.info("%s: it is asked for again", error)


def _known_to(database: Database, request: Request) -> Found:
    """Return what a database has proven before, and kept; NotFoundError, StoreError."""
    try:
        body = database.known(request)
    except OSError as error:
        raise StoreError(f"{request.path} cannot be read: {error.strerror or error}") from error
    if body is None:
        raise NotFoundError(f"{request.path} is not in the store", [])
    return Found(source=FROM_STORE, body=body)


def _from_store(stored: Stored) -> Found:
    return Found(source=FROM_STORE, stored=stored, unverified=stored.unverified)


def _check(request: Request, body: bytes) -> None:
    try:
        content.check(request, body)
    except content.RejectedError as error:
        raise AttemptError(str(error)) from error
