"""Credentials of an upstream, from a file: read anew when it changes, shown to nobody else.

The session leaves the header out when an answer redirects to another host, port or scheme.
"""

from __future__ import annotations

import base64
import netrc
import re
from typing import TYPE_CHECKING

from modhaven.attempt import AttemptError

if TYPE_CHECKING:
    from pathlib import Path

_TOKEN = re.compile(r"[\x21-\x7e]+")
_PAIR = re.compile(r"[^:\s\x00-\x1f][^:\x00-\x1f]*:[^\x00-\x1f]*")


class Credentials:
    """The Authorization header for ``host``."""

    def __init__(self, file: Path, *, host: str) -> None:
        """Read ``file`` at the first request: ``user:password``, ``bearer TOKEN``, or a netrc."""
        self._file = file
        self._host = host
        self._read: tuple[tuple[int, int], str] | None = None

    def header(self) -> str:
        """Return the header's value. Raises AttemptError, which never quotes the file."""
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            known = self._read
            if known is not None and known[0] == stamp:
                return known[1]
            text = self._file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise AttemptError(f"credentials in {self._file} unreadable: {reason}") from None
        header = self._parse(text)
        if header is None:
            raise AttemptError(
                f"credentials in {self._file} are not user:password, bearer TOKEN, or a netrc"
                f" line for {self._host}"
            )
        self._read = (stamp, header)
        return header

    def _parse(self, text: str) -> str | None:
        words = text.split()
        if len(words) == 2 and words[0].lower() == "bearer":
            return f"Bearer {words[1]}" if _TOKEN.fullmatch(words[1]) else None
        if words and words[0] in ("machine", "default"):
            try:
                found = netrc.netrc(str(self._file)).authenticators(self._host)
            except (netrc.NetrcParseError, OSError):
                return None
            return _basic(f"{found[0]}:{found[2]}") if found and found[2] else None
        return _basic(text) if _PAIR.fullmatch(text) else None


def _basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()
