"""The upstream chain as a list of mappings: the options one upstream may have, and their checks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modhaven import checks
from modhaven.chain_spec import UpstreamSpec, make_spec, parse_chain, unique

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modhaven.checks import Check


def _proxy(value: object) -> str:
    wanted = "must be an http://, socks5:// or socks5h:// URL with a host and a port"
    if not isinstance(value, str):
        raise ValueError(wanted)
    parts = urlsplit(value)
    try:
        whole = bool(parts.hostname and parts.port)
    except ValueError:
        whole = False
    # Not quoted in the error: it may hold a password.
    if parts.scheme not in ("http", "socks5", "socks5h") or not whole or parts.path.strip("/"):
        raise ValueError(wanted)
    return value.rstrip("/")


_name = checks.text(r"[A-Za-z0-9._:-]{0,64}", "of letters, digits and . _ : - only")
OPTIONS: Mapping[str, Check] = {
    "name": _name,
    "url": checks.text(r"\S+", "a URL"),
    "falls_through": checks.flag,
    "connect_seconds": checks.seconds(0.1, 60),
    "first_byte_seconds": checks.seconds(0.1, 600),
    "total_seconds": checks.seconds(1, 3600),
    "retries": checks.whole(0, 10),
    "proxy": _proxy,
    "ca_file": checks.path,
    "certificate_file": checks.path,
    "key_file": checks.path,
    "credentials_file": checks.path,
    "modules": checks.some_patterns,
    "not_modules": checks.some_patterns,
    "health_check": checks.flag,
    "tier": checks.text("primary|fallback", "primary or fallback"),
}
# What has a meaning for ``direct``: its own credentials and the rest are in the section direct.
_OF_DIRECT = frozenset(
    {"name", "falls_through", "total_seconds", "proxy", "ca_file", "modules", "not_modules", "tier"}
)


def upstreams(value: object) -> tuple[UpstreamSpec, ...]:
    """Return the chain of a Go-style string or a list; ValueError says what is wrong.

    Primary upstreams come before fallback ones, within a tier in the order written.
    """
    if isinstance(value, str):
        return parse_chain(value)
    if not isinstance(value, list) or not value:
        raise ValueError("must be a Go-style string such as https://a|https://b, or a list")
    specs = []
    for number, entry in enumerate(value, start=1):
        try:
            specs.append(_upstream(entry))
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}") from None
    return unique(sorted(specs, key=lambda spec: spec.fallback))


def _upstream(entry: object) -> UpstreamSpec:
    if not isinstance(entry, dict) or "url" not in entry:
        raise ValueError("must be a mapping with a url")
    options = checks.options("an upstream", entry, OPTIONS)
    for one, other in (("certificate_file", "key_file"), ("key_file", "certificate_file")):
        if one in options and other not in options:
            raise ValueError(f"{one} needs {other} beside it")
    try:
        spec = make_spec(
            options.pop("url"),
            falls_through=options.pop("falls_through", True),
            name=options.pop("name", ""),
        )
    except ValueError as error:
        raise ValueError(f"url {error}") from None
    _check_together(spec, options)
    options["fallback"] = options.pop("tier", "primary") == "fallback"
    return dataclasses.replace(spec, **options)


def _check_together(spec: UpstreamSpec, options: Mapping[str, Any]) -> None:
    """Raise ValueError where ``options`` do not fit the URL."""
    if spec.is_off:
        raise ValueError("url off has no place in a list; write upstreams: off, or end the list")
    if spec.is_direct and (without := sorted(options.keys() - _OF_DIRECT)):
        raise ValueError(
            f"{without[0]} has no meaning for direct; it may have {', '.join(sorted(_OF_DIRECT))}"
        )
    if not spec.url.startswith("https:") and "certificate_file" in options:
        raise ValueError("certificate_file needs an https:// url")
