"""The lab as its inventory describes it: hosts, addresses, groups, variables.

Read once with ``ansible-inventory``, so that tests expect what Ansible deploys. The environment
variable MODHAVEN_INVENTORY names another inventory than inventories/lab, as for the Vagrantfile.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Host:
    """One machine: ``variables`` are its inventory variables, group variables merged in."""

    name: str
    address: str
    groups: frozenset[str]
    variables: dict[str, Any] = field(compare=False, hash=False)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Every host by name, and the hosts of each group in the inventory's order."""

    path: Path
    hosts: dict[str, Host]
    groups: dict[str, tuple[Host, ...]]

    def group(self, name: str) -> tuple[Host, ...]:
        """Give a group's hosts; an unknown group is an empty one."""
        return self.groups.get(name, ())

    def mirror_of(self, public_name: str) -> Host:
        """Give the mirror that answers to a public name; raises KeyError when there is none."""
        for host in self.group("mirrors"):
            if public_name in host.variables.get("mirror_names", ()):
                return host
        raise KeyError(f"no host of the group mirrors has {public_name!r} in its mirror_names")


def tool(name: str) -> str:
    """Give the path of one of Ansible's commands: .venv's, else the PATH's."""
    own = ROOT / ".venv" / "bin" / name
    return str(own) if own.exists() else shutil.which(name) or name


def read(path: Path) -> Inventory:
    """Read an inventory; raises subprocess.CalledProcessError with Ansible's message."""
    done = subprocess.run(
        [tool("ansible-inventory"), "-i", str(path), "--list"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    data = json.loads(done.stdout)
    variables = data.pop("_meta")["hostvars"]
    members = {name: _members(data, name) for name in data}
    hosts = {
        name: Host(
            name=name,
            address=str(own.get("ansible_host", name)),
            groups=frozenset(group for group, names in members.items() if name in names),
            variables=own,
        )
        for name, own in variables.items()
    }
    groups = {
        group: tuple(hosts[name] for name in names if name in hosts)
        for group, names in members.items()
    }
    return Inventory(path=path, hosts=hosts, groups=groups)


@functools.cache
def lab() -> Inventory:
    """Give the lab's inventory, read once a process."""
    return read(ROOT / os.environ.get("MODHAVEN_INVENTORY", "inventories/lab"))


def _members(data: dict[str, Any], group: str) -> list[str]:
    own = data.get(group, {})
    found = dict.fromkeys(own.get("hosts", ()))
    for child in own.get("children", ()):
        found.update(dict.fromkeys(_members(data, child)))
    return list(found)
