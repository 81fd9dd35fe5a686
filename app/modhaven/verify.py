"""Is a module file the one the checksum database knows? Asked before a file is published."""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING, Protocol

from modhaven import modpath, modzip
from modhaven.protocol import Kind, Request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

log = logging.getLogger(__name__)


class Verdict(enum.StrEnum):
    """What is known about a file's bytes."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    EXEMPT = "exempt"


class MismatchError(Exception):
    """The bytes are not those of the module version; the text gives both hashes or the rule."""


class UnreachableError(Exception):
    """No checksum database could be asked, or its answer proved nothing."""


class SumLookup(Protocol):
    """What go.sum lines a checksum database has."""

    def lookup(self, module: str, version: str) -> Sequence[str]:
        """Return the proven go.sum lines of a version (no ``/go.mod``); UnreachableError."""


class Verifier:
    """Compares fetched .mod and .zip files with the checksum database."""

    def __init__(self, database: SumLookup | None, *, nosumdb: str) -> None:
        """Ask ``database`` except for modules that match ``nosumdb`` (GONOSUMDB patterns)."""
        self._database = database
        self._nosumdb = nosumdb

    def verify(self, request: Request, file: BinaryIO) -> Verdict:
        """Check a .mod or .zip in ``file``; any other kind is exempt. MismatchError.

        A zip's own rules are checked also where no database knows it.
        """
        if request.kind not in (Kind.MOD, Kind.ZIP):
            return Verdict.EXEMPT
        file.flush()
        file.seek(0)
        if request.kind is Kind.ZIP:
            name = f"{request.module} {request.version} "
            try:
                actual = modzip.check_and_hash(file, request.module, request.version)
            except ValueError as error:
                raise MismatchError(f"not a module zip: {error}") from error
        else:
            name = f"{request.module} {request.version}/go.mod "
            actual = modzip.hash_go_mod(file.read())
        if self._database is None or modpath.match_prefix_patterns(self._nosumdb, request.module):
            return Verdict.EXEMPT
        try:
            lines = self._database.lookup(request.module, request.version)
        except UnreachableError as error:
            log.warning("%s is published unverified: %s", request.path, error)
            return Verdict.UNVERIFIED
        expected = {line.removeprefix(name) for line in lines if line.startswith(name)}
        if actual in expected:
            return Verdict.VERIFIED
        known = " or ".join(sorted(expected)) or "no hash"
        raise MismatchError(f"hash is {actual}, the checksum database has {known}")
