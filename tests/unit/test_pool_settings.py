"""pool.yml: a mistake is one sentence that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modhaven.checks import ConfigError
from modhaven.pool import settings

ONE = {"name": "backend1", "address": "10.0.3.11", "port": 8443}


def test_defaults_and_all_keys(tmp_path: Path) -> None:
    assert settings.from_mapping({"servers": [ONE]}).servers[0].weight == 1
    path = tmp_path / "pool.yml"
    path.write_text("""
servers:
  - {name: backend1, address: "fd00::11", port: 8443, weight: 2}
  - {name: backend2, address: backend2.example.com, port: 8443, backup: true}
tls: {ca_file: /ca.crt, certificate_file: /host.crt, key_file: /host.key, name: backends.internal}
limits: {max_fails: 3, fail_timeout_seconds: 7, keepalive: 8}
probe: {interval_seconds: 1, timeout_seconds: 2, rise: 3, fall: 4}
surge: {percent: 50, minimum_connections: 10, quiet_seconds: 30, baseline_seconds: 60}
balance: hash
max_removed_share: 0.5
reload_seconds: 3
""")
    loaded = settings.load(path)
    assert loaded.tls is not None
    assert loaded.tls.ca_file == Path("/ca.crt")
    assert [server.backup for server in loaded.servers] == [False, True]
    assert (loaded.limits.keepalive, loaded.probe.fall, loaded.surge.percent) == (8, 4, 50)
    assert loaded.balance == "hash"
    assert (loaded.max_removed_share, loaded.reload_seconds) == (0.5, 3)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "the configuration must be a mapping of keys to values"),
        ({}, "servers is missing: the backends of the inventory belong there"),
        ({"servers": []}, "servers must be a list with at least one server"),
        ({"servers": "backend1"}, "servers must be a list with at least one server"),
        ({"servers": ["b"]}, "servers entry 1 must be a mapping with name, address and port"),
        ({"servers": [{"name": "b"}]}, "servers entry 1 must have name, address and port"),
        ({"servers": [ONE, ONE]}, "servers names backend1 twice"),
        ({"servers": [ONE | {"backup": True}]}, "servers are all backups"),
        ({"servers": [ONE | {"port": 0}]}, "servers entry 1: port must be a whole number from 1"),
        ({"servers": [ONE | {"weight": "2"}]}, "servers entry 1: weight must be a whole number"),
        ({"servers": [ONE | {"name": "../x"}]}, "servers entry 1: name must be a host name"),
        ({"servers": [ONE | {"name": ".x"}]}, "servers entry 1: name must be a host name"),
        ({"servers": [ONE | {"address": "a; }"}]}, "servers entry 1: address must be an address"),
        (
            {"servers": [ONE | {"address": "10.0.3.11:8443"}]},
            "servers entry 1: address must be an address without its port, or a host name",
        ),
        ({"servers": [ONE | {"wieght": 2}]}, "servers entry 1: wieght is not an option of a ser"),
        ({"server": [ONE]}, "server is not a configuration key; the keys here are balance, limi"),
        ({"servers": [ONE], "probe": 3}, "probe must be a mapping"),
        ({"servers": [ONE], "probe": {"fall": 0}}, "probe.fall must be a whole number from 1"),
        (
            {"servers": [ONE], "probe": {"timeout_seconds": "1s"}},
            "probe.timeout_seconds must be a number of seconds, not '1s'",
        ),
        (
            {"servers": [ONE], "probe": {"interval_seconds": float("nan")}},
            "probe.interval_seconds must be from 0.05 to 3600 seconds, not nan",
        ),
        ({"servers": [ONE], "tls": {"name": "x"}}, "tls lacks one of its keys"),
        ({"servers": [ONE], "tls": {"ca_file": "ca"}}, "tls.ca_file must be an absolute path"),
        ({"servers": [ONE], "max_removed_share": 1}, "max_removed_share must be a number from 0 t"),
        ({"servers": [ONE], "max_removed_share": "70%"}, "max_removed_share must be a number"),
        ({"servers": [ONE], "reload_seconds": -1}, "reload_seconds must be from 0 to 3600"),
        ({"servers": [ONE], "surge": {"percent": 1.5}}, "surge.percent must be a whole number"),
    ],
)
def test_a_mistake_is_one_sentence(data: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings.from_mapping(data)
    text = str(raised.value)
    assert text.startswith(sentence)
    assert "\n" not in text


def test_what_is_no_yaml_or_is_not_there_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pool.yml"
    with pytest.raises(ConfigError, match=r"pool\.yml cannot be read: "):
        settings.load(path)
    path.write_text("servers: [\n")
    with pytest.raises(ConfigError, match=r"pool\.yml is not YAML: while parsing") as raised:
        settings.load(path)
    assert "\n" not in str(raised.value)
    # PyYAML has no error of its own for these.
    for text in ("servers: 2024-13-45\n", "servers: !!int x\n"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"pool\.yml is not YAML: "):
            settings.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"pool\.yml cannot be read: "):
        settings.load(path)
