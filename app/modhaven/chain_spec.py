"""The upstream chain as text: the syntax of the go command's GOPROXY, or a list of mappings.

Source of the syntax: cmd/go/internal/modfetch, proxyList. ``off`` and ``direct`` end the chain; an
address without a scheme is https; what follows a comma is asked only after 404 or 410, what follows
a pipe after any failure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from modhaven.globs import match_prefix_patterns

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSpec:
    """One source. ``falls_through``: the next one is asked after any failure (the pipe).

    What is None is as for every upstream. ``modules`` and ``not_modules`` are patterns in
    GOPRIVATE's syntax, ``proxy`` a URL, and ``fallback`` tells that every primary one goes first.
    """

    name: str
    url: str
    falls_through: bool
    connect_seconds: float | None = None
    first_byte_seconds: float | None = None
    total_seconds: float | None = None
    retries: int | None = None
    proxy: str = ""
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    credentials_file: Path | None = None
    modules: str = ""
    not_modules: str = ""
    health_check: bool = True
    fallback: bool = False

    @property
    def is_off(self) -> bool:
        """The word ``off``: no source is asked here or later."""
        return self.url == "off"

    @property
    def is_direct(self) -> bool:
        """The word ``direct``: modules are fetched from where their path says they are."""
        return self.url == "direct"

    def is_for(self, module: str, *, private: bool) -> bool:
        """Tell whether ``module`` may be asked for here.

        A private one may not where nobody wrote that its modules are to be had here; at ``direct``
        it may: nobody but its own origin hears of it.
        """
        if match_prefix_patterns(self.not_modules, module):
            return False
        if self.modules:
            return match_prefix_patterns(self.modules, module)
        return not private or self.is_direct


def parse_chain(text: str) -> tuple[UpstreamSpec, ...]:
    """Return the sources of a Go-style string, in order; ValueError says what is wrong."""
    specs: list[UpstreamSpec] = []
    for url, separator in re.findall(r"([^,|]*)([,|]?)", text):
        address = url.strip()
        if not address:
            continue
        specs.append(make_spec(address, falls_through=separator == "|"))
        if address in ("off", "direct"):
            break
    if not specs:
        raise ValueError("names no upstream; write at least one URL, direct, or off")
    return unique(specs)


def make_spec(url: str, *, falls_through: bool, name: str = "") -> UpstreamSpec:
    """Return one source; ValueError with a sentence when its URL cannot be one."""
    if url == "off":
        return UpstreamSpec(name="off", url="off", falls_through=False)
    if url == "direct":
        return UpstreamSpec(name=name or "direct", url="direct", falls_through=falls_through)
    if ":/" not in url and not url.startswith("/") and re.search(r"[.:/]", url):
        url = "https://" + url
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r} has a port that is not a number up to 65535") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http:// or https:// URL")
    if parts.query or parts.fragment or parts.username:
        raise ValueError(f"the URL of {parts.hostname} may not have a user, a query or a fragment")
    default = parts.hostname if port is None else f"{parts.hostname}:{port}"
    return UpstreamSpec(name=name or default, url=url.rstrip("/"), falls_through=falls_through)


def unique(specs: list[UpstreamSpec]) -> tuple[UpstreamSpec, ...]:
    """Give two sources of one host different names: answers and logs are told apart by them."""
    seen: dict[str, int] = {}
    named: list[UpstreamSpec] = []
    for spec in specs:
        count = seen[spec.name] = seen.get(spec.name, 0) + 1
        name = spec.name if count == 1 else f"{spec.name}#{count}"
        named.append(replace(spec, name=name))
    return tuple(named)
