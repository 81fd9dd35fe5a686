"""One attempt at an upstream: its bound in time, and how it failed in an operator's words."""

from __future__ import annotations

import time
from dataclasses import dataclass

import urllib3.exceptions


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment, on the monotonic clock, when a request's answer is due."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline ``seconds`` from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds that remain, never negative."""
        return max(0.0, self.at - time.monotonic())


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What happened at one upstream."""

    upstream: str
    outcome: str
    milliseconds: int
    not_found: bool = False
    timed_out: bool = False
    transient: bool = False
    skipped: bool = False


class AttemptError(Exception):
    """An upstream did not give the file. The text is what an operator reads: ``500``, ``reset``."""

    def __init__(
        self,
        outcome: str,
        *,
        not_found: bool = False,
        timed_out: bool = False,
        transient: bool = False,
        retry_after: float = 0.0,
        answered: bool = False,
    ) -> None:
        """Describe a failure; ``answered``: not the upstream's health is at fault."""
        super().__init__(outcome)
        self.not_found = not_found
        self.timed_out = timed_out
        self.transient = transient
        self.retry_after = retry_after
        self.answered = answered or not_found
        # Set where more time might have helped: it was asked in a hurry.
        self.hurried = False

    @property
    def category(self) -> str:
        """One of a few words, for counting."""
        if self.not_found:
            return "not_found"
        if self.timed_out:
            return "timed_out"
        return "refused" if self.answered else "failed"


_WORDS = {
    "name or service not known": "name not resolved",
    "failed to resolve": "name not resolved",
    "name resolution": "name not resolved",
    "connection refused": "connection refused",
    "incompleteread": "body truncated",
    "invalidchunklength": "body truncated",
    "reset by peer": "connection reset",
    "connection aborted": "connection closed",
    "network is unreachable": "network unreachable",
    "no route to host": "no route to host",
}


def explain(error: Exception, *, proxied: bool = False) -> AttemptError:
    """Say in a word what broke; library texts name objects and addresses, not causes."""
    text = str(error).lower()
    at_proxy = proxied and (isinstance(error, urllib3.exceptions.ProxyError) or "socks" in text)
    where = "egress proxy: " if at_proxy else ""
    # To urllib3 a refused connection is a kind of connect timeout.
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)
    if (isinstance(error, urllib3.exceptions.TimeoutError) and not refused) or "timed out" in text:
        return AttemptError(f"{where}timed out", timed_out=True)
    if "certificate" in text or isinstance(error, urllib3.exceptions.SSLError):
        return AttemptError("TLS failed: certificate or handshake refused")
    for word, outcome in _WORDS.items():
        if word in text:
            return AttemptError(f"{where}{outcome}", transient=True)
    return AttemptError(f"{where}failed: {type(error).__name__}", transient=True)
