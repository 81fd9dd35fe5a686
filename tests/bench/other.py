"""Other GOPROXY servers, compared with ours in the same run; they run on this machine already.

What ours is asked for they have to find, too. So with one of them the mirrors of the benchmarks
listen where it can be told to look for them: FILES serves the modules of the hits, which no
checksum database knows, MIRROR those of the downloads.
"""

from __future__ import annotations

import ipaddress
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

    def warm(self, path: str, wanted: bytes) -> None:
        """Ask twice for ``path``, which begins with a slash; SystemExit unless it is ``wanted``."""
        for _ in range(2):
            answer = requests.get(self.url + path, timeout=60)
            if answer.status_code != 200 or answer.content != wanted:
                raise SystemExit(
                    f"{self.name} does not serve {self.url}{path} as the mirror does (status"
                    f" {answer.status_code}): let its upstreams be {FILES} and {MIRROR}, and let it"
                    " ask no checksum database about example.com and start with nothing stored"
                )

    def mirrors_database(self) -> bool:
        """Tell whether clients can ask it for the checksum database of the mirror."""
        path = f"/sumdb/{TEST_SUMDB.partition('+')[0]}/supported"
        return requests.get(self.url + path, timeout=60).ok


def parse_others(texts: Iterable[str]) -> tuple[Other, ...]:
    """Return the servers of ``NAME=URL`` texts; ValueError with a sentence for what is none."""
    others: list[Other] = []
    for text in texts:
        name, _, url = text.partition("=")
        parts = urlsplit(url)
        if not name or parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{text!r} is not NAME=http://HOST:PORT")
        if not _is_loopback(parts.hostname):
            raise ValueError(
                f"{url} is not on loopback: the benchmarks put load on this machine only; run the"
                " other server here"
            )
        if name in (other.name for other in others):
            raise ValueError(f"two other servers are called {name!r}")
        others.append(Other(name, url.rstrip("/")))
    return tuple(others)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
