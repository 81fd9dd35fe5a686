"""Jinja2 filters that judge an inventory before anything is changed. They need no facts."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

# RFC 1123, one label or several: the name goes into certificates and headers.
HOST_NAME = re.compile(r"(?!-)[a-zA-Z0-9-]{1,63}(?<!-)(\.(?!-)[a-zA-Z0-9-]{1,63}(?<!-))*")

HostVars = Mapping[str, Mapping[str, Any]]


def node_address(variables: Mapping[str, Any], name: str) -> str:
    """The address other nodes use: modhaven_address, else ansible_host, else the name."""
    for key in ("modhaven_address", "ansible_host"):
        value = str(variables.get(key) or "")
        if value and "{{" not in value:
            return value
    return name


def ip_addresses(names: list[str], hostvars: HostVars) -> list[str]:
    """The addresses of these nodes that are in figures: nginx's `allow` knows no names."""
    addresses = [node_address(hostvars[name], name) for name in names]
    return [address for address in addresses if _is_ip(address)]


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _canonical(address: str) -> str:
    """`address` in its one spelling (RFC 5952 for IPv6; names regardless of case)."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower()


def _doubles(values: list[str]) -> list[str]:
    return sorted(value for value, count in Counter(values).items() if count > 1)


def _group_problems(groups: Mapping[str, list[str]]) -> list[str]:
    return [
        f"The group '{group}' has no host:"
        f" add at least one host line under '{group}' in the inventory."
        for group in ("edges", "backends")
        if not groups.get(group)
    ]


def _name_problems(nodes: list[str], hostvars: HostVars) -> list[str]:
    problems = [
        f"The inventory name '{name}' is not a host name (letters, digits and hyphens):"
        " rename that host line."
        for name in nodes
        if not HOST_NAME.fullmatch(name)
    ]
    problems += [
        f"Two hosts are called '{double}' when upper and lower case are the same:"
        " rename one host line."
        for double in _doubles([name.lower() for name in nodes])
    ]
    addresses = {name: _canonical(node_address(hostvars[name], name)) for name in nodes}
    for double in _doubles(list(addresses.values())):
        owners = " and ".join(name for name in nodes if addresses[name] == double)
        problems.append(
            f"{owners} have the same address {double}:"
            " give each its own 'ansible_host' (or 'modhaven_address')."
        )
    return problems


def _backend_problems(backends: list[str], hostvars: HostVars) -> list[str]:
    problems = []
    for name in backends:
        weight = hostvars[name].get("backend_weight", 1)
        if not re.fullmatch("[0-9]{1,4}", str(weight)) or not 1 <= int(weight) <= 1000:
            problems.append(
                f"'backend_weight' of {name} is {weight!r}: give a whole number from 1 to 1000."
            )
    if backends and all(
        boolean(hostvars[name].get("backend_backup", False), strict=False) for name in backends
    ):
        problems.append(
            "Every backend has 'backend_backup: true': at least one backend must not be a backup."
        )
    return problems


def _client_ports(variables: Mapping[str, Any]) -> dict[str, str]:
    ports = {}
    if boolean(variables.get("edge_https", True), strict=False):
        ports["edge_https_port"] = str(variables.get("edge_https_port", 443))
    if boolean(variables.get("edge_plain_http", False), strict=False):
        ports["edge_http_port"] = str(variables.get("edge_http_port", 80))
    return ports


def _edge_address_problems(edges: list[str], hostvars: HostVars) -> list[str]:
    """VRRP knows no names, and nginx looks its siblings' up when it starts, or does not start."""
    problems = []
    for name in edges:
        variables, address = hostvars[name], node_address(hostvars[name], name)
        siblings = len(edges) > 1 and _number(variables.get("edge_sibling_tries", 8))
        if (siblings or variables.get("vip_address")) and not _is_ip(address):
            problems.append(
                f"{name} needs its IP address in 'modhaven_address', {address!r} is a name:"
                " the VIP and the other edges must not depend on the DNS."
            )
    return problems


def _edge_problems(edges: list[str], backends: list[str], hostvars: HostVars) -> list[str]:
    problems = []
    for name in edges:
        variables = hostvars[name]
        ports = _client_ports(variables)
        if not ports:
            problems.append(
                f"{name} would answer nobody: 'edge_https' and 'edge_plain_http' are both false."
            )
        if _number(variables.get("edge_proxy_protocol_port", 0)):
            ports["edge_proxy_protocol_port"] = str(variables["edge_proxy_protocol_port"])
        if len(edges) > 1 and _number(variables.get("edge_sibling_tries", 8)):
            ports["edge_sibling_port"] = str(variables.get("edge_sibling_port", 8446))
        if name in backends:
            ports["modhaven_backend_port"] = str(variables.get("modhaven_backend_port", 8443))
        for double in _doubles(list(ports.values())):
            owners = " and ".join(f"'{key}'" for key, port in ports.items() if port == double)
            problems.append(f"{owners} of {name} are both {double}: give each its own port.")
        own = bool(variables.get("edge_tls_certificate"))
        if own != bool(variables.get("edge_tls_key")):
            problems.append(
                f"{name} has one of 'edge_tls_certificate' and 'edge_tls_key': give both or none."
            )
        if own and not variables.get("edge_server_names"):
            problems.append(
                f"{name} has 'edge_tls_certificate' and no 'edge_server_names':"
                " name what the certificate is for, clients will ask for it."
            )
    return problems


def _proxy_problems(edges: list[str], hostvars: HostVars) -> list[str]:
    problems = []
    for name in edges:
        variables = hostvars[name]
        trusted = variables.get("edge_trusted_proxies", [])
        if not isinstance(trusted, list):
            problems.append(
                f"'edge_trusted_proxies' of {name} is no list: give a list of addresses."
            )
            continue
        for address in trusted:
            try:
                ipaddress.ip_network(str(address))
            except ValueError:
                problems.append(
                    f"'edge_trusted_proxies' of {name} has {address!r}, which is neither an address"
                    " nor a network: correct it."
                )
        if _number(variables.get("edge_proxy_protocol_port", 0)) and not trusted:
            problems.append(
                f"{name} has 'edge_proxy_protocol_port' and no 'edge_trusted_proxies', so it would"
                " believe nobody: list the addresses of the balancers there."
            )
    return problems


def _monitor_problems(monitors: list[str], edges: list[str], hostvars: HostVars) -> list[str]:
    """An edge that monitors is let in as an edge."""
    return [
        f"{name} of 'monitors' needs its IP address in 'modhaven_address',"
        f" {node_address(hostvars[name], name)!r} is a name:"
        " edges and backends let in addresses to their metrics."
        for name in monitors
        if name not in edges and not _is_ip(node_address(hostvars[name], name))
    ]


def _alike_problems(edges: list[str], hostvars: HostVars) -> list[str]:
    asks = {bool(_number(hostvars[name].get("edge_sibling_tries", 8))) for name in edges}
    problem = (
        "'edge_sibling_tries' is 0 on some edges only: those would be asked and not listen;"
        " set it for all edges alike."
    )
    return [problem] if len(asks) > 1 else []


def _number(value: object) -> int:
    """A whole number, as YAML or the command line has it; 0 for what is none."""
    return int(str(value)) if re.fullmatch("[0-9]{1,9}", str(value)) else 0


def _vip_problems(edges: list[str], hostvars: HostVars, addresses: list[str]) -> list[str]:
    vips = {str(hostvars[name].get("vip_address", "") or "") for name in edges}
    if len(vips) > 1:
        differing = ", ".join([*sorted(vips - {""}), *(["none"] if "" in vips else [])])
        return [f"'vip_address' differs between the edges ({differing}): give all the same."]
    vip = vips.pop() if vips else ""
    if not vip:
        return []
    prefix = hostvars[edges[0]].get("vip_prefix_length", 24)
    try:
        network = ipaddress.ip_network(f"{vip}/{prefix}", strict=False)
    except ValueError:
        return [
            f"'vip_address' {vip!r} with 'vip_prefix_length' {prefix!r} is no address in a network."
        ]
    if network.version != 4:
        return [f"'vip_address' {vip} is an IPv6 address: the VIP is IPv4, give it such a one."]
    if _canonical(vip) in addresses:
        return [f"'vip_address' {vip} is already the address of a host: choose a free address."]
    problems = []
    for name in edges:
        address = node_address(hostvars[name], name)
        try:
            inside = ipaddress.ip_address(address) in network
        except ValueError:
            continue
        if not inside:
            problems.append(
                f"'vip_address' {vip}/{prefix} is outside the subnet of {name} ({address}):"
                " choose an address of the edges' own subnet, or correct 'vip_prefix_length'."
            )
    return problems


def inventory_problems(groups: Mapping[str, list[str]], hostvars: HostVars) -> list[str]:
    """Every reason why this inventory cannot be deployed, one sentence each; empty when it can.

    `groups` and `hostvars` are Ansible's variables of those names.
    """
    members = [
        list(groups.get(group, [])) for group in ("edges", "backends", "clients", "monitors")
    ]
    nodes = list(dict.fromkeys(name for group in members for name in group))
    addresses = [_canonical(node_address(hostvars[name], name)) for name in nodes]
    edges, backends, _, monitors = members
    return [
        *_group_problems(groups),
        *_name_problems(nodes, hostvars),
        *_backend_problems(backends, hostvars),
        *_edge_address_problems(edges, hostvars),
        *_edge_problems(edges, backends, hostvars),
        *_proxy_problems(edges, hostvars),
        *_alike_problems(edges, hostvars),
        *_monitor_problems(monitors, edges, hostvars),
        *_vip_problems(edges, hostvars, addresses),
    ]


def host_of_url(address: str) -> str:
    """An address as it stands in a URL: IPv6 goes into brackets (RFC 3986, section 3.2.2)."""
    return f"[{address}]" if ":" in address else address


def gosumdb(database: str | Mapping[str, Any]) -> str:
    """A checksum database of `modhaven_sumdbs` as GOSUMDB has it: key, and its URL if named."""
    if isinstance(database, str):
        return database
    return " ".join(filter(None, (database["key"], database.get("url"))))


class FilterModule:
    """Ansible finds the filters through this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "gosumdb": gosumdb,
            "host_of_url": host_of_url,
            "inventory_problems": inventory_problems,
            "ip_addresses": ip_addresses,
            "node_address": node_address,
        }
