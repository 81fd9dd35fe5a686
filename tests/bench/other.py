"""Other GOPROXY servers, compared with ours in the same run; they run on this machine already.

What ours is asked for they have to find, too. So with one of them the mirrors of the benchmarks
listen where it can be told to look for them: FILES serves the modules of the hits, which no
checksum database knows, MIRROR those of the downloads.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from tests.conftest import TEST_SUMDB

if TYPE_CHECKING:
    from collections.abc import Iterable

FILES_PORT, MIRROR_PORT = 3901, 3902
FILES = f"http://127.0.0.1:{FILES_PORT}/files"
MIRROR = f"http://127.0.0.1:{MIRROR_PORT}/mod"


@dataclass(frozen=True)
class Other:
    """A server that somebody else has started, empty; ``name`` is what tables call it."""

    name: str
    url: str

    def warm(self, path: str, wanted: bytes) -> str:
        """Ask twice for ``path``, which begins with a slash; a sentence unless it is ``wanted``."""
        for _ in range(2):
            try:
                answer = requests.get(self.url + path, timeout=60)
            except requests.RequestException as error:
                why = type(error).__name__
                return f"{self.name} is left out: it does not answer at {self.url} ({why})"
            if answer.status_code != 200 or answer.content != wanted:
                return (
                    f"{self.name} is left out, as it does not serve {path} as the mirror does"
                    f" (status {answer.status_code}): let its upstreams be {FILES} and {MIRROR},"
                    " and let it ask no checksum database about example.com and start with nothing"
                    " stored"
                )
        return ""

    def mirrors_database(self) -> bool:
        """Tell whether clients can ask it for the checksum database of the mirror."""
        path = f"/sumdb/{TEST_SUMDB.partition('+')[0]}/supported"
        try:
            return requests.get(self.url + path, timeout=60).ok
        except requests.RequestException:
            return False


def parse_others(texts: Iterable[str]) -> tuple[Other, ...]:
    """Return the servers of ``URL`` or ``NAME=URL`` texts; ValueError says what is neither."""
    others: list[Other] = []
    for text in texts:
        name, _, url = ("", "", text) if text.startswith("http://") else text.partition("=")
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or text.startswith("="):
            raise ValueError(f"{text!r} is neither http://HOST:PORT nor NAME=http://HOST:PORT")
        if not _is_here(parts.hostname):
            raise ValueError(
                f"{url} is not on this machine, and the benchmarks put load on no other: run the"
                " other server here"
            )
        name = name or parts.netloc
        if name in (other.name for other in others):
            raise ValueError(f"two other servers are called {name!r}")
        others.append(Other(name, url.rstrip("/")))
    return tuple(others)


def _is_here(host: str) -> bool:
    """Tell whether all that a name or an address means are addresses of this machine."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
        for family, kind, _, _, address in found:
            if ipaddress.ip_address(address[0]).is_unspecified:
                return False
            with socket.socket(family, kind) as probe:
                # Nobody else's can be bound.
                probe.bind(address)
    except (OSError, ValueError):
        return False
    return True
