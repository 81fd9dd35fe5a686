"""What a request comes to: found, not found, or not to be had now. Knows nothing of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modhaven.attempt import Attempt
    from modhaven.store.base import Stored

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


class BusyError(Exception):
    """Too many requests of this kind wait for upstreams already: ask another backend, or later."""
