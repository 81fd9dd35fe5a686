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

from modhaven.chain_spec import UpstreamSpec, make_spec, parse_chain, unique

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[object], object]

PUBLIC_CHAIN = "https://goproxy.cn|https://goproxy.io|https://proxy.golang.org"
PUBLIC_SUMDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


class ConfigError(Exception):
    """The configuration is wrong; the text is one sentence that names the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SumDB:
    """A checksum database: its name, its verifier key ``name+hash+key``, and where it answers."""

    name: str
    key: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Bounds of one request to an upstream."""

    connect_seconds: float = 2.0
    first_byte_seconds: float = 5.0
    total_seconds: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """When an upstream is left out: after ``failures`` in a row, probed every ``open_seconds``."""

    failures: int = 3
    open_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How long answers that may change are kept."""

    mutable_seconds: int = 60
    not_found_seconds: int = 60
    stale_max_seconds: int = 604800


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where modules are kept, what stays free of the file system, and the quarantine's bound."""

    path: Path
    min_free_bytes: int = 1 << 30
    quarantine_max_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A sibling backend, asked for what its store holds when every upstream has failed."""

    name: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTLS:
    """What peers are checked against, and what we show them: PEM files."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the app reads. ``listen`` is ``host:port`` or ``unix:/path``."""

    node: str = field(default_factory=socket.gethostname)
    listen: str = "127.0.0.1:3000"
    store: StoreConfig = field(default_factory=lambda: StoreConfig(path=default_store()))
    upstreams: tuple[UpstreamSpec, ...] = field(default_factory=lambda: parse_chain(PUBLIC_CHAIN))
    upstream_timeouts: Timeouts = field(default_factory=Timeouts)
    upstream_retries: int = 2
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    request_deadline_seconds: float = 300.0
    peers: tuple[Peer, ...] = ()
    peer_tls: PeerTLS | None = None
    ca_file: Path = field(default_factory=lambda: Path(system_ca_file()))
    sumdb: tuple[SumDB, ...] = field(default_factory=lambda: (parse_sumdb(PUBLIC_SUMDB),))
    nosumdb: str = ""
    require_verified: bool = False
    freshness: Freshness = field(default_factory=Freshness)
    drain_file: Path = Path("/run/modhaven/drain")
    workers: int = 2
    threads: int = 32
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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {line}") from None
    return from_mapping({} if data is None else data)


def from_mapping(data: object) -> Config:
    """Build the configuration from parsed YAML; ConfigError names the first key that is wrong."""
    values = _section("", data, _KEYS)
    store = values.get("store")
    if isinstance(store, dict) and "path" not in store:
        store["path"] = default_store()
    build: Mapping[str, Callable[..., object]] = {
        "store": StoreConfig,
        "upstream_timeouts": Timeouts,
        "breaker": BreakerConfig,
        "freshness": Freshness,
        "peer_tls": PeerTLS,
    }
    for key, factory in build.items():
        section = values.get(key)
        if isinstance(section, dict):
            try:
                values[key] = factory(**section)
            except TypeError:
                raise ConfigError(f"{key} lacks one of its keys: all of them are needed") from None
    return Config(**values)  # type: ignore[arg-type] # each value was checked against its key


def parse_sumdb(text: str) -> SumDB:
    """Return a database of ``name+hash+key [url]``, the syntax of GOSUMDB; ValueError if wrong."""
    key, _, url = text.strip().partition(" ")
    if not re.fullmatch(r"[a-z0-9.-]+(/[A-Za-z0-9._~-]+)*\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*", key):
        raise ValueError("must be name+hash+key, optionally followed by a space and a URL, or off")
    name = key.partition("+")[0]
    url = url.strip() or f"https://{name}"
    if not re.fullmatch(r"https?://[^\s?#]+", url):
        raise ValueError(f"{url!r} is not an http:// or https:// URL")
    return SumDB(name=name, key=key, url=url.rstrip("/"))


def _section(name: str, data: object, keys: Mapping[str, Check]) -> dict[str, object]:
    if not isinstance(data, dict):
        raise ConfigError(f"{name or 'the configuration'} must be a mapping of keys to values")
    values: dict[str, object] = {}
    for key, value in data.items():
        full = f"{name}.{key}" if name else str(key)
        check = keys.get(key)
        if check is None:
            known = ", ".join(sorted(keys))
            raise ConfigError(f"{full} is not a configuration key; the keys here are {known}")
        try:
            values[key] = check(value)
        except ValueError as error:
            raise ConfigError(f"{full} {error}") from None
    return values


def _text(pattern: str, meaning: str) -> Check:
    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"must be {meaning}, not {value!r}")
        return value

    return check


def _whole(low: int, high: int) -> Check:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {value!r}")
        return value

    return check


def _seconds(low: float, high: float) -> Check:
    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"must be a number of seconds, not {value!r}")
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g} seconds, not {value:g}")
        return float(value)

    return check


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")
    return value


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError(f"must be an absolute path, not {value!r}")
    return Path(value)


def _listen(value: object) -> str:
    if isinstance(value, str):
        if re.fullmatch(r"unix:/[^\0]+", value):
            return value
        host, colon, port = value.rpartition(":")
        if colon and host and re.fullmatch(r"[0-9]{1,5}", port) and int(port) < 1 << 16:
            return value
    raise ValueError(f"must be host:port or unix:/path, not {value!r}")


def _upstreams(value: object) -> tuple[UpstreamSpec, ...]:
    if isinstance(value, str):
        return parse_chain(value)
    if not isinstance(value, list) or not value:
        raise ValueError("must be a Go-style string such as https://a|https://b, or a list")
    specs = []
    for number, entry in enumerate(value):
        if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
            raise ValueError(f"entry {number + 1} must be a mapping with a url")
        unknown = sorted(str(key) for key in entry.keys() - {"name", "url", "falls_through"})
        if unknown:
            raise ValueError(f"entry {number + 1} has the unknown key {unknown[0]}")
        name, falls_through = entry.get("name", ""), entry.get("falls_through", True)
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._:-]{0,64}", name):
            raise ValueError(f"entry {number + 1}: name may have letters, digits and . _ : - only")
        if not isinstance(falls_through, bool):
            raise ValueError(f"entry {number + 1}: falls_through must be true or false")
        specs.append(make_spec(entry["url"], falls_through=falls_through, name=name))
    return unique(specs)


def _peers(value: object) -> tuple[Peer, ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list of name and url")
    peers = []
    for number, entry in enumerate(value):
        if not isinstance(entry, dict) or entry.keys() != {"name", "url"}:
            raise ValueError(f"entry {number + 1} must have a name and a url, nothing else")
        spec = make_spec(str(entry["url"]), falls_through=True, name=str(entry["name"]))
        peers.append(Peer(name=spec.name, url=spec.url))
    return tuple(peers)


def _sumdbs(value: object) -> tuple[SumDB, ...]:
    if value in ("off", []):
        return ()
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("must be name+hash+key, a list of these, or off")
    return tuple(parse_sumdb(str(text)) for text in texts)


def _patterns(value: object) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ",".join(value)
    if not isinstance(value, str):
        raise ValueError("must be GONOSUMDB patterns separated by commas")
    return value


_DAY = 86400
_KEYS: Mapping[str, Check] = {
    "node": _text(r"[A-Za-z0-9._-]{1,253}", "a host name"),
    "listen": _listen,
    "store": lambda value: _section(
        "store",
        value,
        {
            "path": _path,
            "min_free_bytes": _whole(0, 1 << 60),
            "quarantine_max_bytes": _whole(0, 1 << 60),
        },
    ),
    "upstreams": _upstreams,
    "upstream_timeouts": lambda value: _section(
        "upstream_timeouts",
        value,
        {
            "connect_seconds": _seconds(0.1, 60),
            "first_byte_seconds": _seconds(0.1, 600),
            "total_seconds": _seconds(1, 3600),
        },
    ),
    "upstream_retries": _whole(0, 10),
    "breaker": lambda value: _section(
        "breaker", value, {"failures": _whole(1, 100), "open_seconds": _seconds(0.1, 3600)}
    ),
    "request_deadline_seconds": _seconds(1, 3600),
    "peers": _peers,
    "peer_tls": lambda value: _section(
        "peer_tls", value, {"ca_file": _path, "certificate_file": _path, "key_file": _path}
    ),
    "ca_file": _path,
    "sumdb": _sumdbs,
    "nosumdb": _patterns,
    "require_verified": _truth,
    "freshness": lambda value: _section(
        "freshness",
        value,
        {
            "mutable_seconds": _whole(0, _DAY),
            "not_found_seconds": _whole(0, _DAY),
            "stale_max_seconds": _whole(0, 365 * _DAY),
        },
    ),
    "drain_file": _path,
    "workers": _whole(1, 64),
    "threads": _whole(1, 1024),
    "graceful_timeout_seconds": _whole(1, 3600),
}
