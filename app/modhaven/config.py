"""The configuration: one frozen, validated object read from YAML.

Every key has a default, so that no file at all is a working proxy. An unknown key or a bad value is
refused with one sentence that names the key.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from modhaven import chain_options, checks, direct_options, sumdb_options
from modhaven.chain_spec import UpstreamSpec, make_spec, parse_chain
from modhaven.checks import ConfigError
from modhaven.settings import (
    BreakerConfig,
    DirectConfig,
    Freshness,
    Hedge,
    Limits,
    Peer,
    PeerTLS,
    StoreConfig,
    SumDB,
    Timeouts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from modhaven.checks import Check

__all__ = [
    "BreakerConfig",
    "Config",
    "ConfigError",
    "DirectConfig",
    "Freshness",
    "Hedge",
    "Limits",
    "Peer",
    "PeerTLS",
    "StoreConfig",
    "SumDB",
    "Timeouts",
    "from_mapping",
    "known_keys",
    "load",
    "read",
]

PUBLIC_CHAIN = "https://goproxy.cn|https://goproxy.io|https://proxy.golang.org"
PUBLIC_SUMDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the app reads. ``listen`` is ``host:port`` or ``unix:/path``."""

    node: str = field(default_factory=socket.gethostname)
    listen: str = "127.0.0.1:3000"
    store: StoreConfig = field(default_factory=lambda: StoreConfig(path=default_store()))
    upstreams: tuple[UpstreamSpec, ...] = field(default_factory=lambda: parse_chain(PUBLIC_CHAIN))
    upstream_timeouts: Timeouts = field(default_factory=Timeouts)
    upstream_retries: int = 2
    upstream_rounds: int = 3
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    hedge: Hedge = field(default_factory=Hedge)
    direct: DirectConfig = field(default_factory=DirectConfig)
    private: str = ""
    request_deadline_seconds: float = 300.0
    peers: tuple[Peer, ...] = ()
    peer_seconds: float = 3.0
    peer_tls: PeerTLS | None = None
    ca_file: Path = field(default_factory=lambda: Path(system_ca_file()))
    sumdb: tuple[SumDB, ...] = field(default_factory=lambda: (sumdb_options.parse(PUBLIC_SUMDB),))
    nosumdb: str = ""
    require_verified: bool = False
    freshness: Freshness = field(default_factory=Freshness)
    drain_file: Path = Path("/run/modhaven/drain")
    workers: int = 2
    limits: Limits = field(default_factory=Limits)
    accel_prefix: str = ""
    graceful_timeout_seconds: int = 30


def default_store() -> Path:
    """Return the store used without a configuration: below the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "modhaven" / "store"


def system_ca_file() -> Path:
    """Return the system's own list of certificate authorities, where the operator adds theirs."""
    found = ssl.get_default_verify_paths().cafile
    return Path(found) if found else Path("/etc/ssl/certs/ca-certificates.crt")


def load(path: Path) -> Config:
    """Read the configuration file at ``path``; ConfigError when it cannot be read or is wrong."""
    return from_mapping(read(path))


def read(path: Path) -> object:
    """Return the file at ``path`` as parsed YAML, unchecked; ConfigError when it is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {line}") from None
    return {} if data is None else data


def from_mapping(data: object) -> Config:
    """Build the configuration from parsed YAML; ConfigError names the first key that is wrong."""
    values = checks.section("", data, _KEYS)
    store = values.get("store")
    if isinstance(store, dict) and "path" not in store:
        store["path"] = default_store()
    build: Mapping[str, Callable[..., object]] = {
        "store": StoreConfig,
        "upstream_timeouts": Timeouts,
        "breaker": BreakerConfig,
        "hedge": Hedge,
        "direct": DirectConfig,
        "freshness": Freshness,
        "limits": Limits,
        "peer_tls": PeerTLS,
    }
    for key, factory in build.items():
        section = values.get(key)
        if isinstance(section, dict):
            try:
                values[key] = factory(**section)
            except TypeError:
                raise ConfigError(f"{key} lacks one of its keys: all of them are needed") from None
    hedge = values.get("hedge")
    if isinstance(hedge, Hedge) and hedge.min_seconds > hedge.max_seconds:
        raise ConfigError(
            f"hedge.min_seconds must not be above hedge.max_seconds, which is {hedge.max_seconds:g}"
        )
    return Config(**values)  # type: ignore[arg-type] # each value was checked against its key


def known_keys() -> list[str]:
    """Return every key there is: ``node``, ``store.path``, ``upstreams[].name``."""
    lists: Mapping[str, Iterable[str]] = {
        "upstreams": chain_options.OPTIONS,
        "peers": ("name", "url"),
        "sumdb": sumdb_options.OPTIONS,
        "direct.ssh": direct_options.SSH,
    }
    names: list[str] = []
    for key in _KEYS:
        for name in [f"{key}.{name}" for name in _SECTIONS[key]] if key in _SECTIONS else [key]:
            names += [name, *(f"{name}[].{option}" for option in lists.get(name, ()))]
    return names


def _listen(value: object) -> str:
    if isinstance(value, str):
        if re.fullmatch(r"unix:/[^\0]+", value):
            return value
        host, colon, port = value.rpartition(":")
        if colon and host and re.fullmatch(r"[0-9]{1,5}", port) and int(port) < 1 << 16:
            return value
    raise ValueError(f"must be host:port or unix:/path, not {value!r}")


def _peers(value: object) -> tuple[Peer, ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list of name and url")
    peers = []
    for number, entry in enumerate(value):
        if not isinstance(entry, dict) or entry.keys() != {"name", "url"}:
            raise ValueError(f"entry {number + 1} must have a name and a url, nothing else")
        spec = make_spec(str(entry["url"]), falls_through=True, name=str(entry["name"]))
        if spec.is_off or spec.is_direct:
            raise ValueError(f"entry {number + 1}: {spec.url} is no address of a sibling backend")
        peers.append(Peer(name=spec.name, url=spec.url))
    return tuple(peers)


_DAY = 86400
_SECTIONS: Mapping[str, Mapping[str, Check]] = {
    "store": {
        "path": checks.path,
        "min_free_bytes": checks.whole(0, 1 << 60),
        "quarantine_max_bytes": checks.whole(0, 1 << 60),
    },
    "upstream_timeouts": {
        "connect_seconds": checks.seconds(0.1, 60),
        "patience_seconds": checks.seconds(0.1, 600),
        "first_byte_seconds": checks.seconds(0.1, 600),
        "total_seconds": checks.seconds(1, 3600),
    },
    "breaker": {"failures": checks.whole(1, 100), "open_seconds": checks.seconds(0.1, 3600)},
    "hedge": {
        "enabled": checks.flag,
        "min_seconds": checks.seconds(0.01, 60),
        "max_seconds": checks.seconds(0.01, 60),
    },
    "direct": direct_options.KEYS,
    "peer_tls": {
        "ca_file": checks.path,
        "certificate_file": checks.path,
        "key_file": checks.path,
    },
    "freshness": {
        "mutable_seconds": checks.whole(0, _DAY),
        "not_found_seconds": checks.whole(0, _DAY),
        "stale_max_seconds": checks.whole(0, 365 * _DAY),
    },
    "limits": {
        "zip_requests": checks.whole(1, 10_000),
        "file_requests": checks.whole(1, 10_000),
        "mutable_requests": checks.whole(1, 10_000),
    },
}


def _section(name: str) -> Check:
    return lambda value: checks.section(name, value, _SECTIONS[name])


_KEYS: Mapping[str, Check] = {
    "node": checks.text(r"[A-Za-z0-9._-]{1,253}", "a host name"),
    "listen": _listen,
    "store": _section("store"),
    "upstreams": chain_options.upstreams,
    "upstream_timeouts": _section("upstream_timeouts"),
    "upstream_retries": checks.whole(0, 10),
    "upstream_rounds": checks.whole(1, 10),
    "breaker": _section("breaker"),
    "hedge": _section("hedge"),
    "direct": direct_options.section,
    "private": checks.patterns,
    "request_deadline_seconds": checks.seconds(1, 3600),
    "peers": _peers,
    "peer_seconds": checks.seconds(0.1, 60),
    "peer_tls": _section("peer_tls"),
    "ca_file": checks.path,
    "sumdb": sumdb_options.databases,
    "nosumdb": checks.patterns,
    "require_verified": checks.flag,
    "freshness": _section("freshness"),
    "drain_file": checks.path,
    "workers": checks.whole(1, 64),
    "limits": _section("limits"),
    "accel_prefix": checks.text(
        r"(/[A-Za-z0-9._-]+)*", "a path such as /-/store, without a slash at its end"
    ),
    "graceful_timeout_seconds": checks.whole(1, 3600),
}
