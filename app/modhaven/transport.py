"""The connections to one upstream: whom it trusts, what it shows, through which egress proxy.

urllib3 itself, not requests: what that adds to a GET without parameters, body and cookies (it looks
for each of them, several times) takes as long as the rest of a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
import urllib3.contrib.socks

from modhaven import __version__
from modhaven.attempt import AttemptError
from modhaven.credentials import Credentials
from modhaven.dial import POOLS

if TYPE_CHECKING:
    from pathlib import Path

    from modhaven.chain_spec import UpstreamSpec

_MAX_REDIRECTS = 10
_DEFAULT_PORTS = {"http": 80, "https": 443}
# identity: a transparent gzip would change what Content-Length is compared with.
_HEADERS = {
    "User-Agent": f"modhaven/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
}


class Session:
    """A connection pool of one worker process, for all its threads.

    Where a redirect leads away from the host of ``own``, a URL, what was configured for it ends.
    """

    def __init__(
        self,
        *,
        own: str,
        pool: urllib3.PoolManager,
        elsewhere: urllib3.PoolManager,
        credentials: Credentials | None = None,
    ) -> None:
        """Ask ``own`` by ``pool`` with ``credentials``; other hosts, if any, by ``elsewhere``."""
        self._own = _origin(own) if own else None
        self._pool = pool
        self._elsewhere = elsewhere
        self._credentials = credentials

    def __enter__(self) -> Self:
        """Use it in a with statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is open."""
        self._pool.clear()
        self._elsewhere.clear()

    def get(self, url: str, *, timeout: urllib3.Timeout) -> urllib3.BaseHTTPResponse:
        """Return the answer to a GET, redirects followed, its body still to be read.

        The caller closes it: a body that was not read to its end costs the connection. ``timeout``
        is for each of the answers on the way. Raises AttemptError, urllib3.exceptions.HTTPError.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self.send("GET", url, timeout=timeout)
            location = answer.get_redirect_location()
            if not location:
                return answer
            with answer:
                answer.drain_conn()
            target = urljoin(url, location)
            if url.startswith("https:") and not target.startswith("https:"):
                raise AttemptError("redirected from https to http")
            url = target
        raise AttemptError("redirected too often")

    def send(self, method: str, url: str, *, timeout: urllib3.Timeout) -> urllib3.BaseHTTPResponse:
        """Return the answer of ``url`` itself, also where it is a redirect; as get does."""
        headers, pool = _HEADERS, self._pool
        if self._own is not None and _origin(url) != self._own:
            pool = self._elsewhere
        elif self._credentials is not None:
            headers = {**_HEADERS, "Authorization": self._credentials.header()}
        return pool.urlopen(
            method, url, redirect=False, retries=False, preload_content=False,
            timeout=timeout, headers=headers,
        )  # fmt: skip


def make_session(
    *,
    ca_file: Path,
    pool_size: int,
    certificate: tuple[Path, Path] | None = None,
    spec: UpstreamSpec | None = None,
) -> Session:
    """Return the connections to one upstream, or to all for whom the same is configured.

    They trust the authorities of ``ca_file``, show ``certificate`` (certificate and key) where they
    are asked for one, read neither proxy variables nor .netrc, and keep no cookies. What ``spec``
    says of authorities, certificate and credentials is for the host of its URL alone.
    """
    if spec is None:
        pool = _pool(ca_file, pool_size, certificate)
        return Session(own="", pool=pool, elsewhere=pool)
    if spec.certificate_file is not None and spec.key_file is not None:
        certificate = (spec.certificate_file, spec.key_file)
    credentials = None
    if spec.credentials_file is not None:
        credentials = Credentials(spec.credentials_file, host=urlsplit(spec.url).hostname or "")
    return Session(
        own=spec.url,
        pool=_pool(spec.ca_file or ca_file, pool_size, certificate, proxy=spec.proxy),
        elsewhere=_pool(ca_file, pool_size, None, proxy=spec.proxy),
        credentials=credentials,
    )


def _pool(
    ca_file: Path, pool_size: int, certificate: tuple[Path, Path] | None, *, proxy: str = ""
) -> urllib3.PoolManager:
    options: dict[str, Any] = {
        "num_pools": 16,
        "maxsize": pool_size,
        "cert_reqs": "CERT_REQUIRED",
        "ca_certs": str(ca_file),
    }
    if certificate is not None:
        options |= {"cert_file": str(certificate[0]), "key_file": str(certificate[1])}
    if proxy.startswith("socks"):
        return urllib3.contrib.socks.SOCKSProxyManager(proxy, **options)
    if proxy:
        pool: urllib3.PoolManager = urllib3.ProxyManager(
            proxy, proxy_headers=_proxy_headers(proxy), **options
        )
    else:
        pool = urllib3.PoolManager(**options)
    pool.pool_classes_by_scheme = POOLS
    return pool


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return dict(urllib3.make_headers(proxy_basic_auth=pair))


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
