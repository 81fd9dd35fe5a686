"""Jinja2 filters that judge a host from what look.sh printed, before anything is changed on it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SUPPORTED = {"Debian": ("12", "13")}
OUR_PROGRAMS = {"nginx"}


def parse_look(text: str) -> dict[str, Any]:
    """The lines of roles/preflight/files/look.sh as a mapping; what may come twice is a list."""
    seen: dict[str, Any] = {"foreign": [], "listen": [], "package": [], "trusts": []}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if not separator:
            continue
        if isinstance(seen.get(key), list):
            seen[key].append(value)
        else:
            seen[key] = {"yes": True, "no": False}.get(value, value)
    return seen


def is_bare(seen: Mapping[str, Any], groups: Sequence[str], vip_address: str) -> bool:
    """Whether check mode would miss what the roles of `groups` install before they use it."""
    needed = ["python_apt"]
    needed += ["modhaven_nginx"] if {"edges", "backends"} & set(groups) else []
    needed += ["modhaven_app"] if {"edges", "backends"} & set(groups) else []
    needed += ["modhaven_pool"] if "edges" in groups else []
    needed += ["keepalived"] if "edges" in groups and vip_address else []
    needed += ["update_ca_certificates"] if "clients" in groups else []
    return not all(seen.get(key) for key in needed)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("-")[0]))


def _listen_problems(seen: Mapping[str, Any], name: str, ports: Mapping[str, int]) -> list[str]:
    # One port may have several listeners, each on another address.
    taken = {
        port: program
        for port, _, program in (line.partition(" ") for line in seen["listen"])
        if program not in OUR_PROGRAMS
    }
    return [
        f"Port {port} of {name} is taken by {taken[str(port)] or 'another program'}:"
        f" stop it there, or set '{variable}' to a free port."
        for variable, port in ports.items()
        if str(port) in taken
    ]


def host_problems(
    seen: Mapping[str, Any],
    name: str,
    *,
    groups: Sequence[str],
    facts: Mapping[str, Any],
    ports: Mapping[str, int],
    nginx_minimum: str,
    vip_address: str = "",
) -> list[str]:
    """Every reason why `name` cannot be deployed, one sentence each; empty when it can.

    `ports` maps the variable that sets a port to its value; `facts` needs distribution and
    distribution_major_version.
    """
    problems = []
    system = str(facts.get("distribution", "unknown"))
    release = str(facts.get("distribution_major_version", ""))
    if release not in SUPPORTED.get(system, ()):
        problems.append(
            f"{name} runs {system} {release}, and modhaven deploys on Debian 12 and 13:"
            " install one of these there."
        )
    if not seen.get("systemd"):
        problems.append(
            f"{name} is not run by systemd (no /run/systemd/system): use a host that systemd boots."
        )
    if not {"edges", "backends"} & set(groups):
        return problems
    version = str(seen.get("nginx_version", ""))
    # Debian's own is new enough; an older one comes from elsewhere.
    if version and _number(version) < _number(str(nginx_minimum)):
        problems.append(
            f"{name} has nginx {version}, and 'preflight_nginx_minimum' asks for {nginx_minimum}:"
            " upgrade nginx there."
        )
    if seen["foreign"]:
        problems.append(
            f"{name} has an nginx configuration of its own ({', '.join(seen['foreign'])}),"
            " which modhaven would replace: move it away, or use another host."
        )
    if seen.get("keepalived_of_others") and "edges" in groups and vip_address:
        problems.append(
            f"{name} has a keepalived configuration of its own (/etc/keepalived/keepalived.conf),"
            " which 'vip_address' would replace: move it away, or use another host."
        )
    return problems + _listen_problems(seen, name, ports)


def interface_of(facts: Mapping[str, Any], address: str) -> str:
    """The network interface that holds an IPv4 address, from Ansible's facts; "" for none."""
    for device in facts.get("interfaces", ()):
        interface = facts.get(str(device).replace("-", "_"), {})
        held = [interface.get("ipv4", {}), *interface.get("ipv4_secondaries", ())]
        if any(entry.get("address") == address for entry in held):
            return str(interface.get("device", device))
    return ""


class FilterModule:
    """Ansible finds the filters through this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "host_problems": host_problems,
            "interface_of": interface_of,
            "is_bare": is_bare,
            "parse_look": parse_look,
        }
