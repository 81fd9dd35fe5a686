"""Is a module file the one the checksum database knows? Asked before a file is published."""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING, Protocol

from modhaven import modpath, modzip, sumdb
from modhaven.protocol import Kind, Request

if TYPE_CHECKING:
    from typing import BinaryIO

log = logging.getLogger(__name__)


class Verdict(enum.StrEnum):
    """What is known about a file's bytes."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    EXEMPT = "exempt"


class MismatchError(Exception):
    """The bytes are not those of the module version; the text gives both hashes or the rule."""


class StoppedError(Exception):
    """A checksum database has signed two histories: nothing new is published."""


class SumLookup(Protocol):
    """What a checksum database knows (sumdb.Client)."""

    def lookup_hash(self, module: str, version: str, suffix: str = "") -> str:
        """Return the proven h1: hash of a zip, or of its go.mod with ``/go.mod``; SumdbError."""


class Verifier:
    """Compares fetched .mod and .zip files with the checksum database."""

    def __init__(self, database: SumLookup | None, *, nosumdb: str) -> None:
        """Ask ``database`` except for modules that match ``nosumdb`` (GONOSUMDB patterns)."""
        self._database = database
        self._nosumdb = nosumdb

    def verify(self, request: Request, file: BinaryIO) -> Verdict:
        """Check a .mod or .zip in ``file``; any other kind is exempt.

        A zip's own rules are checked also where no database is asked. A database that gives no
        proof, for whatever reason, leaves the file unverified. MismatchError, StoppedError.
        """
        if request.kind not in (Kind.MOD, Kind.ZIP):
            return Verdict.EXEMPT
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
        if self._database is None or modpath.match_prefix_patterns(self._nosumdb, request.module):
            return Verdict.EXEMPT
        try:
            known = self._database.lookup_hash(request.module, request.version, suffix)
        except sumdb.ForkError as error:
            raise StoppedError(f"{request.path} is not published: {error}") from error
        except sumdb.SumdbError as error:
            log.warning("%s cannot be verified: %s", request.path, error)
            return Verdict.UNVERIFIED
        if actual == known:
            return Verdict.VERIFIED
        raise MismatchError(f"hash is {actual}, the checksum database has {known}")
