"""pool.yml: the pool as the inventory has it. Ansible writes it, nobody else."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from modhaven import checks
from modhaven.checks import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from modhaven.checks import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One backend of the inventory. ``looked_up``: the name whose ``address`` this is, if any."""

    name: str
    address: str
    port: int
    weight: int = 1
    backup: bool = False
    looked_up: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How backends are spoken to: PEM files, and the name their certificates have."""

    ca_file: Path
    certificate_file: Path
    key_file: Path
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How often each backend is asked whether it is ready, and when its state changes.

    After ``fall`` bad answers in a row it is down, after ``rise`` good ones up again.
    """

    interval_seconds: float = 0.5
    timeout_seconds: float = 0.8
    rise: int = 2
    fall: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Surge:
    """When backups serve beside the others: ``percent`` more connections than usual.

    Below ``minimum_connections`` nothing is a surge. They go back to being backups when it has
    been quiet for ``quiet_seconds``. What is usual is learned over ``baseline_seconds``.
    """

    percent: int = 200
    minimum_connections: int = 100
    quiet_seconds: float = 120.0
    baseline_seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What nginx does by itself between two decisions of the pool manager."""

    max_fails: int = 2
    fail_timeout_seconds: int = 5
    keepalive: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """All of pool.yml.

    ``balance``: ``least_conn``, or ``hash`` for all files of a module on the same server.
    ``max_removed_share``: the largest share of the servers that may be left out because they are
    down; when more are down, all are asked that nobody has drained.
    """

    servers: tuple[Server, ...]
    tls: TLS | None = None
    balance: str = "least_conn"
    limits: Limits = field(default_factory=Limits)
    probe: Probe = field(default_factory=Probe)
    surge: Surge = field(default_factory=Surge)
    max_removed_share: float = 0.7
    reload_seconds: float = 2.0


def load(path: Path) -> PoolConfig:
    """Read pool.yml; ConfigError says in one sentence what is wrong with it."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    # ValueError: of what looks like a date or a number, and is none.
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return from_mapping(data)


def from_mapping(data: object) -> PoolConfig:
    """Build the configuration from parsed YAML; ConfigError names the first key that is wrong."""
    values: dict[str, Any] = checks.section("", data, _KEYS)
    if "servers" not in values:
        raise ConfigError("servers is missing: the backends of the inventory belong there")
    for key, factory in _FACTORIES.items():
        if key in values:
            try:
                values[key] = factory(**values[key])
            except TypeError:
                raise ConfigError(f"{key} lacks one of its keys: all of them are needed") from None
    return PoolConfig(**values)


def _servers(value: object) -> tuple[Server, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list with at least one server")
    servers = []
    for number, entry in enumerate(value, start=1):
        if not isinstance(entry, dict):
            raise ValueError(f"entry {number} must be a mapping with name, address and port")
        try:
            options = checks.options("a server", entry, _SERVER)
            servers.append(Server(**options))
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}") from None
        except TypeError:
            raise ValueError(f"entry {number} must have name, address and port") from None
    twice = [name for name, count in Counter(one.name for one in servers).items() if count > 1]
    if twice:
        raise ValueError(f"names {twice[0]} twice")
    if all(server.backup for server in servers):
        raise ValueError("are all backups: at least one must serve always")
    return tuple(servers)


def _address(value: object) -> str:
    address = str(_HOST(value))
    if ":" in address:
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            raise ValueError(
                f"must be an address without its port, or a host name, not {value!r}"
            ) from None
    return address


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"must be a number from 0 to below 1, not {value!r}")
    return float(value)


_HOST = checks.text(r"[A-Za-z0-9:][A-Za-z0-9._:-]{0,252}", "an address or a host name")
_SERVER: Mapping[str, Check] = {
    "name": checks.text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", "a host name"),
    "address": _address,
    "port": checks.whole(1, 65535),
    "weight": checks.whole(1, 65535),
    "backup": checks.flag,
}
_SECTIONS: Mapping[str, Mapping[str, Check]] = {
    "tls": {
        "ca_file": checks.path,
        "certificate_file": checks.path,
        "key_file": checks.path,
        "name": checks.text(r"[A-Za-z0-9.-]{1,253}", "a host name"),
    },
    "limits": {
        "max_fails": checks.whole(0, 1000),
        "fail_timeout_seconds": checks.whole(1, 3600),
        "keepalive": checks.whole(1, 10_000),
    },
    "probe": {
        "interval_seconds": checks.seconds(0.05, 3600),
        "timeout_seconds": checks.seconds(0.05, 60),
        "rise": checks.whole(1, 100),
        "fall": checks.whole(1, 100),
    },
    "surge": {
        "percent": checks.whole(10, 100_000),
        "minimum_connections": checks.whole(1, 1_000_000),
        "quiet_seconds": checks.seconds(1, 86_400),
        "baseline_seconds": checks.seconds(1, 86_400),
    },
}
_FACTORIES: Mapping[str, Any] = {"tls": TLS, "limits": Limits, "probe": Probe, "surge": Surge}


def _section(name: str) -> Check:
    return lambda value: checks.section(name, value, _SECTIONS[name])


_KEYS: Mapping[str, Check] = {
    "servers": _servers,
    "balance": checks.text("least_conn|hash", "least_conn or hash"),
    "max_removed_share": _share,
    "reload_seconds": checks.seconds(0, 3600),
    **{name: _section(name) for name in _SECTIONS},
}
