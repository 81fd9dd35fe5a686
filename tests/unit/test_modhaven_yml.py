"""The role's template of the app's configuration, with the role's defaults: the app takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from tests.unit.ansible_plugin import ROOT

from modhaven import config
from modhaven.settings import SSHHost

GIVEN: dict[str, Any] = {
    "ansible_managed": "managed",
    "inventory_hostname": "backend1",
    "_backend_direct": False,
    "_backend_peers": [{"name": "backend2", "url": "https://192.0.2.2:8443"}],
    "_modhaven_pki_dir": "/etc/modhaven/pki",
    "modhaven_mtls": True,
    "modhaven_sumdbs": ["sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"],
    "modhaven_nosumdb": ["*.corp.example"],
    "modhaven_mutable_seconds": 60,
    "_backend_accel_prefix": "/-/store",
}
LIST = [
    {"url": "https://goproxy.cn", "connect_seconds": 1, "health_check": False},
    {
        "url": "https://athens.corp.example",
        "modules": ["*.corp.example"],
        "credentials_file": "/etc/modhaven/athens.netrc",
        "tier": "fallback",
    },
]


def rendered(**changes: Any) -> config.Config:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - YAML, not HTML
    environment.filters.update(to_json=json.dumps, bool=bool)
    defaults = yaml.safe_load((ROOT / "roles/backend/defaults/main.yml").read_text())
    template = environment.from_string((ROOT / "templates/modhaven.yml.j2").read_text())
    return config.from_mapping(yaml.safe_load(template.render({**GIVEN, **defaults, **changes})))


def test_the_roles_defaults_are_the_apps() -> None:
    made, own = rendered(), config.Config()
    assert made.upstreams == own.upstreams
    assert made.upstream_timeouts == own.upstream_timeouts
    assert made.hedge == own.hedge
    assert (made.private, made.peer_seconds) == (own.private, own.peer_seconds)
    assert made.limits == own.limits


def test_upstreams_may_be_a_list() -> None:
    made = rendered(backend_upstreams=LIST, backend_private=["*.corp.example", "corp.example"])
    assert [spec.name for spec in made.upstreams] == ["goproxy.cn", "athens.corp.example"]
    assert not made.upstreams[0].health_check
    assert made.upstreams[1].modules == "*.corp.example"
    assert made.private == "*.corp.example,corp.example"


def test_what_direct_needs_is_there_where_the_chain_has_it() -> None:
    ssh = {"host": "src.corp.example", "user": "git", "port": 22, "key_file": "/d/src.key"}
    made = rendered(
        backend_upstreams=[*LIST, {"url": "direct", "modules": ["src.corp.example"]}],
        backend_direct_https=[{"host": "git.corp.example", "user": "u", "password": "s3cret"}],
        backend_direct_ssh=[{"host": "src.corp.example", "key": "s3cret", "host_key": "s3cret"}],
        backend_direct_processes=3,
        _backend_direct=True,
        _backend_direct_dir="/d",
        _backend_direct_ssh=[ssh],
        _backend_go_dir="/opt/modhaven/go/go-1",
    )
    assert made.direct == config.DirectConfig(
        go="/opt/modhaven/go/go-1/bin/go",
        processes=3,
        netrc_file=Path("/d/netrc"),
        ssh=(SSHHost(host="src.corp.example", key_file=Path("/d/src.key")),),
        known_hosts_file=Path("/d/known_hosts"),
    )


def test_the_roles_defaults_of_direct_are_the_apps() -> None:
    made = rendered(
        backend_upstreams="direct",
        _backend_direct=True,
        _backend_go_dir="/go",
        _backend_direct_dir="",
    )
    assert made.direct == config.DirectConfig(go="/go/bin/go")


@pytest.mark.parametrize("enabled", [True, False])
def test_hedging_is_a_switch(*, enabled: bool) -> None:
    assert rendered(backend_hedge_enabled=enabled).hedge.enabled is enabled
