"""The connections to one upstream: whom it trusts, what it shows, through which egress proxy."""

from __future__ import annotations

import http.cookiejar
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import requests.adapters

from modhaven import __version__
from modhaven.credentials import Credentials
from modhaven.dial import POOLS

if TYPE_CHECKING:
    from pathlib import Path

    from modhaven.chain_spec import UpstreamSpec

_MAX_REDIRECTS = 10
_DEFAULT_PORTS = {"http": 80, "https": 443}


class _Adapter(requests.adapters.HTTPAdapter):
    """Connects within a bound; elsewhere than at ``own`` shows no certificate of ours.

    ``own`` is a URL: where a redirect leads away from its host, what was configured for it ends.
    """

    def __init__(self, *, own: str, elsewhere: Path, pool_size: int) -> None:
        self._own = _origin(own)
        self._elsewhere = str(elsewhere)
        super().__init__(pool_connections=16, pool_maxsize=pool_size)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.startswith("socks"):
            manager.pool_classes_by_scheme = POOLS
        return manager

    def send(
        self, request: requests.PreparedRequest, *args: Any, **options: Any
    ) -> requests.Response:
        if self._own is not None and _origin(request.url or "") != self._own:
            options["cert"] = None
            options["verify"] = self._elsewhere
        return super().send(request, *args, **options)


def make_session(
    *,
    ca_file: Path,
    pool_size: int,
    certificate: tuple[Path, Path] | None = None,
    spec: UpstreamSpec | None = None,
) -> requests.Session:
    """Return a connection pool of one worker process, for all its threads.

    It trusts the authorities of ``ca_file``, shows ``certificate`` (certificate and key) where it
    is asked for one, reads neither proxy variables nor .netrc, and keeps no cookies. What ``spec``
    says of authorities, certificate, credentials and proxy is for the host of its URL alone.
    """
    session = requests.Session()
    session.trust_env = False
    session.verify = str(ca_file)
    session.max_redirects = _MAX_REDIRECTS
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    # identity: a transparent gzip would change what Content-Length is compared with.
    session.headers.update(
        {"User-Agent": f"modhaven/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
    )
    if spec is not None:
        if spec.ca_file is not None:
            session.verify = str(spec.ca_file)
        if spec.certificate_file is not None and spec.key_file is not None:
            certificate = (spec.certificate_file, spec.key_file)
        if spec.credentials_file is not None:
            host = urlsplit(spec.url).hostname or ""
            session.auth = Credentials(spec.credentials_file, host=host)
        if spec.proxy:
            session.proxies = {"http": spec.proxy, "https": spec.proxy}
    if certificate is not None:
        session.cert = (str(certificate[0]), str(certificate[1]))
    for scheme in ("http://", "https://"):
        own = spec.url if spec is not None else ""
        session.mount(scheme, _Adapter(own=own, elsewhere=ca_file, pool_size=pool_size))
    return session


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    if not url:
        return None
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
