"""What preflight says of an inventory: every rule, in one sentence each, and no crash."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from tests.unit.ansible_plugin import ROOT, is_one_sentence, load

inventory = load("filter/inventory.py")

Groups = dict[str, list[str]]
HostVars = dict[str, dict[str, Any]]

GROUPS: Groups = {
    "all": ["edge1", "edge2", "backend1", "backend2", "backend3", "client1"],
    "edges": ["edge1", "edge2"],
    "backends": ["backend1", "backend2", "backend3"],
    "clients": ["client1"],
}
HOSTS: HostVars = {
    "edge1": {"ansible_host": "192.0.2.11", "vip_address": "192.0.2.100"},
    "edge2": {"ansible_host": "192.0.2.12", "vip_address": "192.0.2.100"},
    "backend1": {"ansible_host": "192.0.2.21", "backend_weight": 3},
    "backend2": {"ansible_host": "192.0.2.22"},
    "backend3": {"ansible_host": "192.0.2.23", "backend_backup": True},
    "client1": {"ansible_host": "192.0.2.51"},
}


def problems(
    *, groups: Groups | None = None, hosts: HostVars | None = None, **changes: dict[str, Any]
) -> list[str]:
    """The sentences for the right inventory with `changes` {host: {variable: value}}."""
    variables = copy.deepcopy(HOSTS) | copy.deepcopy(hosts or {})
    for host, values in changes.items():
        variables[host] |= values
    found: list[str] = inventory.inventory_problems({**GROUPS, **(groups or {})}, variables)
    assert [text for text in found if not is_one_sentence(text)] == []
    return found


def the_problem(
    *, groups: Groups | None = None, hosts: HostVars | None = None, **changes: dict[str, Any]
) -> str:
    found = problems(groups=groups, hosts=hosts, **changes)
    assert len(found) == 1, found
    return found[0]


# --- right ones


def test_a_right_inventory_has_no_problem() -> None:
    assert problems() == []


def test_one_host_in_every_group_is_right() -> None:
    groups = {"edges": ["one"], "backends": ["one"], "clients": ["one"], "monitors": ["one"]}
    assert inventory.inventory_problems(groups, {"one": {}}) == []


def test_hosts_that_share_roles_are_right() -> None:
    names = ["node1", "node2", "node3"]
    groups = {"edges": names, "backends": names}
    hosts = {name: {"ansible_host": f"192.0.2.{n}"} for n, name in enumerate(names, 1)}
    assert inventory.inventory_problems(groups, hosts) == []


def test_no_vip_is_right() -> None:
    no_vip = {"vip_address": ""}
    assert problems(edge1=no_vip, edge2=no_vip) == []


def test_addresses_may_be_names_except_of_several_edges() -> None:
    assert (
        problems(
            groups={"edges": ["edge1"]},
            edge1={"ansible_host": "edge1.corp.example", "vip_address": None},
            backend1={"ansible_host": "backend1.corp.example"},
        )
        == []
    )


def test_clients_and_monitors_may_be_missing() -> None:
    assert problems(groups={"clients": []}) == []


def read_inventory(name: str) -> tuple[Groups, HostVars]:
    """Groups and host variables of a plain inventories/`name`/hosts.yml with its group_vars/all."""
    folder = ROOT / "inventories" / name
    tree = yaml.safe_load((folder / "hosts.yml").read_text())["all"]
    shared: dict[str, Any] = {}
    for path in sorted((folder / "group_vars" / "all").glob("*.yml")):
        shared |= yaml.safe_load(path.read_text()) or {}
    groups: Groups = {}
    hosts: HostVars = {host: dict(own or {}) for host, own in tree.get("hosts", {}).items()}
    for group, content in tree["children"].items():
        groups[group] = list(content["hosts"])
        for host, own in content["hosts"].items():
            hosts[host] = hosts.get(host, {}) | (own or {})
    return groups, {host: shared | own for host, own in hosts.items()}


@pytest.mark.parametrize("name", ["lab", "local"])
def test_the_inventories_of_the_repository_are_right(name: str) -> None:
    assert inventory.inventory_problems(*read_inventory(name)) == []


# --- groups


@pytest.mark.parametrize("group", ["edges", "backends"])
def test_an_empty_group_is_named(group: str) -> None:
    assert f"group '{group}' has no host" in the_problem(groups={group: []})


@pytest.mark.parametrize("group", ["edges", "backends"])
def test_a_missing_group_is_named(group: str) -> None:
    groups = {name: members for name, members in GROUPS.items() if name != group}
    (problem,) = inventory.inventory_problems(groups, HOSTS)
    assert f"group '{group}' has no host" in problem


def test_an_inventory_without_any_host_names_both_groups() -> None:
    found = inventory.inventory_problems({}, {})
    assert ["'edges'" in text or "'backends'" in text for text in found] == [True, True]


# --- names and addresses


@pytest.mark.parametrize("name", ["edge_1", "-edge", "edge-", "edge 1", "a..b", "é", "a" * 64, ""])
def test_a_name_that_is_no_host_name(name: str) -> None:
    problem = the_problem(groups={"clients": [name]}, hosts={name: {"ansible_host": "192.0.2.60"}})
    assert f"'{name}' is not a host name" in problem


@pytest.mark.parametrize("name", ["e", "EDGE-1", "edge1.corp.example", "192.0.2.60", "a" * 63])
def test_a_name_that_is_a_host_name(name: str) -> None:
    hosts = {name: {"ansible_host": "192.0.2.60"}}
    assert problems(groups={"clients": [name]}, hosts=hosts) == []


def test_names_that_differ_only_in_case() -> None:
    problem = the_problem(
        groups={"clients": ["EDGE1"]}, hosts={"EDGE1": {"ansible_host": "192.0.2.60"}}
    )
    assert "'edge1'" in problem


def test_two_hosts_with_one_address_are_both_named_with_the_variable() -> None:
    problem = the_problem(backend2={"ansible_host": "192.0.2.21"})
    assert problem.startswith("backend1 and backend2 have the same address 192.0.2.21")
    assert "'ansible_host'" in problem


def test_an_edge_and_a_client_with_one_address() -> None:
    assert "edge1 and client1" in the_problem(client1={"ansible_host": "192.0.2.11"})


def test_a_monitor_with_the_address_of_an_edge() -> None:
    problem = the_problem(
        groups={"monitors": ["monitor1"]}, hosts={"monitor1": {"ansible_host": "192.0.2.11"}}
    )
    assert "edge1 and monitor1" in problem


def test_a_monitor_whose_address_is_a_name_would_not_be_let_in() -> None:
    hosts: HostVars = {"monitor1": {"ansible_host": "monitor1.corp.example"}}
    problem = the_problem(groups={"monitors": ["monitor1"]}, hosts=hosts)
    assert problem.startswith("monitor1 of 'monitors' needs its IP address in 'modhaven_address'")
    hosts = {"monitor1": {**hosts["monitor1"], "modhaven_address": "192.0.2.61"}}
    assert problems(groups={"monitors": ["monitor1"]}, hosts=hosts) == []


def test_modhaven_address_counts_before_ansible_host() -> None:
    assert "192.0.2.22" in the_problem(backend1={"modhaven_address": "192.0.2.22"})
    assert problems(client1={"ansible_host": "192.0.2.11", "modhaven_address": "192.0.2.51"}) == []


def test_a_name_counts_as_the_address_where_there_is_no_other() -> None:
    hosts: HostVars = {"client2": {}, "client3": {"ansible_host": "client2"}}
    assert "client2 and client3" in the_problem(
        groups={"clients": ["client1", "client2", "client3"]}, hosts=hosts
    )


@pytest.mark.parametrize(
    ("one", "other"), [("2001:db8::b", "2001:DB8:0::B"), ("backend1.corp", "BACKEND1.corp")]
)
def test_one_address_written_in_two_ways_is_one_address(one: str, other: str) -> None:
    found = problems(backend1={"ansible_host": one}, backend2={"ansible_host": other})
    assert any(text.startswith("backend1 and backend2") for text in found), found


# --- backends


@pytest.mark.parametrize("weight", [1, 3, 1000, "3"])
def test_a_right_weight(weight: object) -> None:
    assert problems(backend1={"backend_weight": weight}) == []


@pytest.mark.parametrize(
    "weight", [0, -1, 1001, 1.5, "", "much", "0", None, True, False, [3], {}, "²", "٣", "3 "]
)
def test_a_wrong_weight_names_variable_and_host(weight: object) -> None:
    problem = the_problem(backend1={"backend_weight": weight})
    assert problem.startswith("'backend_weight' of backend1 is ")


@pytest.mark.parametrize("true", [True, "true", "True", "yes", "on", "1", 1])
def test_only_backups(true: object) -> None:
    backup = {"backend_backup": true}
    problem = the_problem(backend1=backup, backend2=backup, backend3=backup)
    assert "'backend_backup: true'" in problem


@pytest.mark.parametrize("false", [False, "false", "no", "off", "0", 0, None, ""])
def test_one_backend_that_is_no_backup_is_enough(false: object) -> None:
    backup = {"backend_backup": "yes"}
    assert problems(backend1={"backend_backup": false}, backend2=backup) == []


# --- the VIP


@pytest.mark.parametrize(("vip", "prefix"), [("198.51.100.1", 24), ("192.0.2.100", 28)])
def test_a_vip_outside_the_subnet_names_each_edge_and_the_variable(vip: str, prefix: int) -> None:
    values = {"vip_address": vip, "vip_prefix_length": prefix}
    found = problems(edge1=values, edge2=values)
    assert len(found) == 2
    for name, text in zip(("edge1", "edge2"), found, strict=True):
        assert f"'vip_address' {vip}/{prefix} is outside the subnet of {name}" in text
        assert "'vip_prefix_length'" in text


def test_only_the_edge_in_another_subnet_is_named() -> None:
    assert "of edge2 (198.51.100.12)" in the_problem(edge2={"ansible_host": "198.51.100.12"})


@pytest.mark.parametrize("prefix", [20, "24", 25])
def test_a_vip_inside_the_subnet(prefix: object) -> None:
    values = {"vip_prefix_length": prefix}
    assert problems(edge1=values, edge2=values) == []


def test_an_ipv6_vip_is_refused() -> None:
    values = {"vip_address": "2001:db8::100", "vip_prefix_length": 64}
    assert "is an IPv6 address" in the_problem(edge1=values, edge2=values)


# --- what an edge answers on


@pytest.mark.parametrize("no", [False, "false", "no"])
def test_an_edge_that_would_answer_nobody(no: object) -> None:
    problem = the_problem(edge1={"edge_https": no, "edge_plain_http": no})
    assert "'edge_https' and 'edge_plain_http' are both false" in problem


def test_two_ports_of_one_host_are_the_same() -> None:
    groups = {"edges": ["one"], "backends": ["one"]}
    (problem,) = inventory.inventory_problems(groups, {"one": {"edge_https_port": 8443}})
    assert "'edge_https_port' and 'modhaven_backend_port' of one are both 8443" in problem
    assert problems(edge1={"edge_https_port": 8443}) == []


def test_the_ports_that_edges_have_when_there_are_several() -> None:
    assert problems(edge1={"edge_https_port": 8446}) == [
        "'edge_https_port' and 'edge_sibling_port' of edge1 are both 8446: give each its own port."
    ]
    off = {"edge_sibling_tries": 0}
    assert problems(edge1={"edge_https_port": 8446, **off}, edge2=off) == []
    one = {"edges": ["edge1"]}
    assert problems(groups=one, edge1={"edge_https_port": 8446}) == []
    given = {"edge_proxy_protocol_port": 443, "edge_trusted_proxies": ["192.0.2.1"]}
    assert "'edge_https_port' and 'edge_proxy_protocol_port' of edge1" in the_problem(edge1=given)


def test_edges_know_each_other_by_address() -> None:
    plain = {"vip_address": ""}
    named = plain | {"ansible_host": "edge2.corp.example"}
    (problem,) = problems(edge1=plain, edge2=named)
    assert problem.startswith("edge2 needs its IP address in 'modhaven_address', 'edge2.corp")
    alone = {"edge_sibling_tries": 0}
    assert problems(edge1=plain | alone, edge2=named | alone) == []
    assert problems(edge1=plain, edge2=named, groups={"edges": ["edge2"]}) == []


def test_an_edge_that_is_asked_and_does_not_listen() -> None:
    assert "'edge_sibling_tries' is 0 on some edges only" in the_problem(
        edge1={"edge_sibling_tries": 0}
    )


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "balancer.example", "10.0.0.256", "10.0.0.1:80"])
def test_a_trusted_proxy_that_is_no_address(wrong: str) -> None:
    right = ["192.0.2.7", "198.51.100.0/24", "2001:db8::/32"]
    assert problems(edge1={"edge_trusted_proxies": right}) == []
    problem = the_problem(edge1={"edge_trusted_proxies": [*right, wrong]})
    assert f"'edge_trusted_proxies' of edge1 has {wrong!r}" in problem


def test_balancers_that_nobody_believes() -> None:
    assert "would believe nobody" in the_problem(edge1={"edge_proxy_protocol_port": 8444})
    assert "is no list" in the_problem(edge1={"edge_trusted_proxies": "10.0.0.1"})


@pytest.mark.parametrize("given", ["edge_tls_certificate", "edge_tls_key"])
def test_half_a_certificate(given: str) -> None:
    found = problems(edge1={given: "/x", "edge_server_names": ["goproxy.corp.example"]})
    assert found == [
        "edge1 has one of 'edge_tls_certificate' and 'edge_tls_key': give both or none."
    ]


def test_a_certificate_without_a_name_to_ask_for() -> None:
    own = {"edge_tls_certificate": "/x", "edge_tls_key": "/y"}
    assert "no 'edge_server_names'" in the_problem(edge1=own)
    assert problems(edge1=own | {"edge_server_names": ["goproxy.corp.example"]}) == []


@pytest.mark.parametrize(
    "values",
    [
        {"vip_address": "the VIP"},
        {"vip_address": "192.0.2.300"},
        {"vip_address": "192.0.2.100/24"},
        {"vip_address": ["192.0.2.100"]},
        {"vip_address": True},
        {"vip_prefix_length": 33},
        {"vip_prefix_length": -1},
        {"vip_prefix_length": None},
        {"vip_prefix_length": "wide"},
    ],
)
def test_a_vip_that_is_no_address(values: dict[str, Any]) -> None:
    problem = the_problem(edge1=values, edge2=values)
    assert "'vip_address'" in problem
    assert "is no address in a network" in problem


@pytest.mark.parametrize("host", ["edge1", "backend2", "client1"])
def test_a_vip_that_is_a_host_s_own_address(host: str) -> None:
    values = {"vip_address": HOSTS[host]["ansible_host"]}
    problem = the_problem(edge1=values, edge2=values)
    assert problem.startswith("'vip_address' 192.0.2.")
    assert "already the address of a host" in problem


def test_edges_with_different_vips() -> None:
    problem = the_problem(edge2={"vip_address": "192.0.2.101"})
    assert "'vip_address' differs between the edges" in problem
    assert "192.0.2.100" in problem
    assert "192.0.2.101" in problem


@pytest.mark.parametrize("nothing", ["", None])
def test_a_vip_on_one_edge_only_says_that_the_other_has_none(nothing: object) -> None:
    problem = the_problem(edge2={"vip_address": nothing})
    assert "'vip_address' differs between the edges (192.0.2.100, none)" in problem


def test_an_edge_with_a_name_for_its_address_cannot_be_a_vrrp_peer() -> None:
    problem = the_problem(edge2={"ansible_host": "edge2.corp.example"})
    assert "edge2 needs its IP address in 'modhaven_address'" in problem


# --- several at once, and strange values


def test_all_problems_are_reported_at_once() -> None:
    backup = {"backend_backup": True}
    found = problems(
        edge1={"vip_address": "198.51.100.1"},
        edge2={"vip_address": "198.51.100.1"},
        backend1=backup | {"backend_weight": 0},
        backend2=backup,
        client1={"ansible_host": "192.0.2.11"},
    )
    for part in (
        "'backend_weight'",
        "'backend_backup: true'",
        "edge1 and client1",
        "subnet of edge1",
        "subnet of edge2",
    ):
        assert [part in text for text in found].count(True) == 1, part
    assert len(found) == 5


@pytest.mark.parametrize("variable", ["ansible_host", "modhaven_address"])
@pytest.mark.parametrize("nothing", [None, "", "{{ somewhere_else }}"])
def test_an_address_that_says_nothing_gives_way_to_the_next(variable: str, nothing: object) -> None:
    assert inventory.node_address({variable: nothing}, "host1") == "host1"
    other = {"ansible_host": "192.0.2.1", "modhaven_address": "192.0.2.2"} | {variable: nothing}
    assert inventory.node_address(other, "host1") in ("192.0.2.1", "192.0.2.2")


def test_two_hosts_whose_address_is_left_empty_do_not_share_one() -> None:
    hosts: HostVars = {"client2": {"ansible_host": None}, "client3": {"ansible_host": None}}
    assert problems(groups={"clients": ["client2", "client3"]}, hosts=hosts) == []


@pytest.mark.parametrize("value", [None, True, 0, 1.5, [], {}, "", "{{ x }}", "::1", "é\n"])
@pytest.mark.parametrize(
    "variable",
    [
        "ansible_host",
        "modhaven_address",
        "vip_address",
        "vip_prefix_length",
        "backend_weight",
        "backend_backup",
    ],
)
def test_no_value_of_a_variable_crashes_the_check(variable: str, value: object) -> None:
    hosts: HostVars = {host: own | {variable: value} for host, own in HOSTS.items()}
    assert isinstance(inventory.inventory_problems(GROUPS, hosts), list)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("edge1.corp.example", "edge1.corp.example"),
    ],
)
def test_an_address_in_a_url(address: str, expected: str) -> None:
    assert inventory.host_of_url(address) == expected


def test_addresses_for_nginx_are_in_figures() -> None:
    hosts: HostVars = {
        # A name of hexadecimal figures is no address; a host line may be one.
        "b1": {}, "edge1": {}, "192.0.2.1": {}, "fe::": {},
        "edge2": {"ansible_host": "cafe.ad"}, "edge3": {"modhaven_address": "2001:db8::1"},
    }  # fmt: skip
    expected = ["192.0.2.1", "fe::", "2001:db8::1"]
    assert inventory.ip_addresses(list(hosts), hosts) == expected


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ("sum.x+00+k https://sum.y", "sum.x+00+k https://sum.y"),
        ({"key": "sum.x+00+k", "modules": ["corp.x"]}, "sum.x+00+k"),
        ({"key": "sum.x+00+k", "url": "https://sum.y"}, "sum.x+00+k https://sum.y"),
    ],
)
def test_a_database_as_gosumdb_has_it(database: str | dict[str, str], expected: str) -> None:
    assert inventory.gosumdb(database) == expected


def test_ansible_finds_the_filters() -> None:
    assert set(inventory.FilterModule().filters()) == {
        "gosumdb",
        "host_of_url",
        "inventory_problems",
        "ip_addresses",
        "node_address",
    }
