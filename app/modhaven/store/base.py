"""What the gateway asks of a store. Small on purpose: an object store can follow without a change.

A key is a request's path in its one spelling (protocol.Request.path):
``rsc.io/quote/@v/v1.5.2.zip`` or ``sumdb/<name>/lookup/…``. Immutable keys are published once,
whole. Mutable ones (lists, @latest, queries) are kept apart with the time they were fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


class StoreError(Exception):
    """The store cannot be read or written; the text says what failed and what to look at."""


class LockTimeoutError(Exception):
    """Another process held a key for longer than this request may wait."""


class PurgedError(Exception):
    """What was fetched is not published: it was purged meanwhile, and is to be fetched again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A published file: where it is, its size in bytes, and whether it was never verified."""

    path: Path
    size: int
    unverified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutable:
    """An answer that may change, with the upstream it came from and its age in seconds."""

    body: bytes
    source: str
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a store holds: published files, their bytes, and how many are marked unverified."""

    files: int
    size: int
    unverified: int


class Staged(Protocol):
    """A file being fetched: nobody sees it until ``publish``."""

    @property
    def file(self) -> BinaryIO:
        """The file to write to; readable and seekable."""

    @property
    def path(self) -> Path:
        """Where the unpublished bytes are."""

    def publish(self, *, unverified: bool = False) -> Stored:
        """Make it durable and visible under its key, all or nothing; StoreError.

        Raises PurgedError when the key was purged after it was staged.
        """

    def quarantine(self, reason: str) -> Path:
        """Keep it out of reach for an operator to look at, with the reason beside it."""


class Pins(Protocol):
    """What files were when they were first used; a pin outlives its file."""

    def hash_of(self, key: str, actual: str) -> str:
        """Return the h1: hash that ``key`` is pinned to; ``actual``, from now, if it had none."""

    def where(self, key: str) -> Path:
        """Return what an operator removes to let other bytes in."""


class Purges(Protocol):
    """What has been purged: what was asked for before that is not kept."""

    def last(self, key: str, *, negative: bool = False) -> int:
        """Return the number of the last purge that ``key`` belongs to; 0 for none. StoreError.

        ``negative``: or of the last purge of every "not found".
        """


class Store(Protocol):
    """Published files, mutable answers, pins, and one lock a key across processes."""

    @property
    def pins(self) -> Pins:
        """The hashes of what no checksum database is asked about."""

    @property
    def purges(self) -> Purges:
        """What has been purged."""

    def find(self, key: str) -> Stored | None:
        """Return the published file, or None."""

    def stage(self, key: str) -> AbstractContextManager[Staged]:
        """Open a temporary file for ``key``; what is unpublished at the end is removed."""

    def get_mutable(self, key: str) -> Mutable | None:
        """Return the last answer kept for ``key``, however old."""

    def put_mutable(self, key: str, body: bytes, source: str, *, since: int) -> None:
        """Keep an answer with the time of now; StoreError.

        ``since`` is what ``purges.last`` said before it was asked for: PurgedError when the key
        was purged after that.
        """

    def versions(self, escaped_module: str) -> list[str]:
        """Return the versions whose .info is held, pseudo-versions included, in no order."""

    def lock(self, key: str, *, wait_seconds: float) -> AbstractContextManager[None]:
        """Hold ``key`` across processes; LockTimeoutError, StoreError. It dies with its holder."""

    def published(self) -> Iterator[str]:
        """Yield the keys of the modules' files."""

    def unverified(self) -> Iterator[str]:
        """Yield the keys that are marked as unverified."""

    def mark(self, key: str, *, unverified: bool) -> None:
        """Set or remove the marker of ``key``, whose lock the caller holds; StoreError."""

    def withdraw(self, key: str, reason: str) -> Path:
        """Move a published file, whose lock the caller holds, to quarantine; StoreError.

        Its version leaves the list of what the store holds.
        """

    def refresh_list(self, escaped_module: str) -> None:
        """Make the store's own list of a module's versions say what is held; StoreError."""

    def usage(self) -> Usage:
        """Count what is published; takes a while. StoreError."""

    def free_bytes(self) -> int:
        """Return how many bytes may still be stored; 0 where that cannot be found out."""

    def problem(self) -> str | None:
        """Return why the store cannot take files now, as a sentence, or None."""
