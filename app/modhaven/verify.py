"""Is a module file the one the checksum database knows? Asked before a file is published."""

from __future__ import annotations

import contextlib
import contextvars
import enum
import logging
import threading
from typing import TYPE_CHECKING, Protocol

from modhaven import metrics, modzip, sumdb
from modhaven.protocol import Kind, Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from modhaven.store.base import Pins

log = logging.getLogger(__name__)


class Verdict(enum.StrEnum):
    """What is known about a file's bytes."""

    VERIFIED = "verified"
    # The same as when they were first used, in a module no database is asked about.
    PINNED = "pinned"
    # The database could not be asked.
    UNVERIFIED = "unverified"
    # It was asked, and gave no proof: it does not know the version, or answers rubbish.
    UNKNOWN = "unknown"
    EXEMPT = "exempt"

    @property
    def unproven(self) -> bool:
        """Whether the file is published marked, and asked about again."""
        return self in (Verdict.UNVERIFIED, Verdict.UNKNOWN)


class MismatchError(Exception):
    """The bytes are not those of the module version; the text gives both hashes or the rule."""


class StoppedError(Exception):
    """A checksum database has signed two histories: nothing new is published."""


class UnprovenError(StoppedError):
    """No database vouches for the file, and nothing is published without (require_verified)."""


class SumLookup(Protocol):
    """What a checksum database knows (sumdb.Client)."""

    def lookup_hash(self, module: str, version: str, suffix: str = "") -> str:
        """Return the proven h1: hash of a zip, or of its go.mod with ``/go.mod``; SumdbError."""


class Verifier:
    """Compares fetched .mod and .zip files with the checksum database of their module."""

    def __init__(
        self,
        database_for: Callable[[str], SumLookup | None],
        *,
        pins: Pins | None = None,
        required: bool = False,
    ) -> None:
        """Ask what ``database_for`` names for a module path.

        What no database is asked about is compared with ``pins``. With ``required`` an unproven
        file is an error.
        """
        self._database_for = database_for
        self._pins = pins
        self._required = required

    def look_ahead(self, request: Request) -> None:
        """Begin to ask the database about a .mod that is about to be fetched.

        One wait for the network instead of two: ``verify`` finds the answer, or joins the question
        under way. A zip comes after its go.mod, and one record has the hashes of both.
        """
        if request.kind is not Kind.MOD:
            return
        database = self._database_for(request.module)
        if database is None:
            return
        # In a copy of the context, which carries the request's deadline.
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(_ask, database, request), daemon=True).start()

    def verify(self, request: Request, file: BinaryIO) -> Verdict:
        """Check a .mod or .zip in ``file``; any other kind is exempt.

        A zip's own rules are checked also where no database is asked. A database that gives no
        proof, for whatever reason, leaves the file unproven. The caller holds the key's lock.
        Raises MismatchError, StoppedError, UnprovenError, store.base.StoreError.
        """
        if request.kind not in (Kind.MOD, Kind.ZIP):
            return Verdict.EXEMPT
        try:
            verdict = self._judge(request, file)
        except MismatchError:
            metrics.verifications.labels("mismatch").inc()
            raise
        except StoppedError:
            metrics.verifications.labels("stopped").inc()
            raise
        metrics.verifications.labels(verdict.value).inc()
        return verdict

    def _judge(self, request: Request, file: BinaryIO) -> Verdict:
        file.flush()
        file.seek(0)
        if request.kind is Kind.ZIP:
            suffix = ""
            try:
                actual = modzip.check_and_hash(file, request.module, request.version)
            except ValueError as error:
                raise MismatchError(f"not a module zip: {error}") from error
        else:
            suffix = "/go.mod"
            actual = modzip.hash_go_mod(file.read())
        database = self._database_for(request.module)
        if database is None:
            return self._compare_with_pin(request, actual)
        try:
            known = database.lookup_hash(request.module, request.version, suffix)
        except sumdb.ForkError as error:
            raise StoppedError(f"{request.path} is not published: {error}") from error
        except sumdb.SumdbError as error:
            if self._required:
                raise UnprovenError(
                    f"{request.path} is not published: require_verified is set, "
                    f"and the checksum database gave no proof: {error}"
                ) from error
            log.warning("%s cannot be verified: %s", request.path, error)
            asked = not isinstance(error, sumdb.Unreachable)
            return Verdict.UNKNOWN if asked else Verdict.UNVERIFIED
        if actual == known:
            return Verdict.VERIFIED
        raise MismatchError(f"hash is {actual}, the checksum database has {known}")

    def _compare_with_pin(self, request: Request, actual: str) -> Verdict:
        if self._pins is None:
            return Verdict.EXEMPT
        known = self._pins.hash_of(request.path, actual)
        if actual == known:
            return Verdict.PINNED
        where = self._pins.where(request.path)
        raise MismatchError(
            f"hash is {actual}, but when it was first used here {known}; remove {where} "
            "if the new one is right"
        )


def _ask(database: SumLookup, request: Request) -> None:
    # A failure is for verify, which asks again, to judge and to tell.
    with contextlib.suppress(sumdb.SumdbError):
        database.lookup_hash(request.module, request.version, "/go.mod")
