"""Jinja2 filters that give the drill the inventory, as far as it needs it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ansible.module_utils.parsing.convert_bool import boolean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

GROUPS = ("edges", "backends", "clients")


def drill_hosts(
    groups: Mapping[str, Iterable[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each deployed host with its address, its groups and its ssh command ([]: this machine)."""
    names = dict.fromkeys(name for group in GROUPS for name in groups.get(group, ()))
    return [
        {
            "name": name,
            "address": _address(hostvars[name], name),
            "groups": [group for group in GROUPS if name in groups.get(group, ())],
            "backup": boolean(hostvars[name].get("backend_backup", False), strict=False),
            "ssh": ssh_command(hostvars[name], name),
        }
        for name in names
    ]


def _address(variables: Mapping[str, Any], name: str) -> str:
    address = str(variables.get("modhaven_address") or "")
    return address if address and "{{" not in address else str(variables.get("ansible_host", name))


def ssh_command(variables: Mapping[str, Any], name: str) -> list[str]:
    """How Ansible's ssh connection reaches a host, as a command line without the command."""
    if variables.get("ansible_connection") == "local":
        return []
    words = ["ssh"]
    for key in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        words += shlex.split(str(variables.get(key) or ""))
    key_file = variables.get("ansible_ssh_private_key_file") or variables.get(
        "ansible_private_key_file"
    )
    if key_file:
        words += ["-i", str(Path(str(key_file)).expanduser())]
    port = variables.get("ansible_port") or variables.get("ansible_ssh_port")
    words += ["-p", str(port)] if port else []
    user = variables.get("ansible_user") or variables.get("ansible_ssh_user")
    words += ["-l", str(user)] if user else []
    return [*words, str(variables.get("ansible_host", name))]


def drill_mirrors(upstreams: str | Iterable[Mapping[str, Any]]) -> list[str]:
    """The host names of backend_upstreams, a string or a list of mappings, in their order."""
    urls = (
        re.split(r"[,|\s]+", upstreams)
        if isinstance(upstreams, str)
        else [str(entry["url"]) for entry in upstreams]
    )
    return [host for url in urls if (host := urlsplit(url).hostname)]


class FilterModule:
    """Ansible finds the filters through this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"drill_hosts": drill_hosts, "drill_mirrors": drill_mirrors}
