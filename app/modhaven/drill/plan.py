"""What the playbook gives the drill: the inventory as far as it is needed, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from modhaven import modpath
from modhaven.drill.hosts import Host
from modhaven.drill.load import MAX_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Mapping

# The load of a scenario lasts so long, if nobody ends it: longer than any playbook takes.
LOAD_SECONDS = 550.0
MAX_RATE = int(MAX_REQUESTS / LOAD_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One drill. ``url`` is what users ask, ``addresses`` where its name leads, if it is one.

    ``mirrors`` are the host names of the chain, ``playbook`` the command that runs a playbook of
    the folder ``root``; ``controller_ca_file`` is what the controller trusts where it has to be the
    client. The other fields are the role's options of the same name (roles/drill).
    """

    hosts: tuple[Host, ...]
    inventory: str
    vip: str
    url: str
    addresses: Mapping[str, str]
    port: int
    store: str
    mirrors: tuple[str, ...]
    playbook: tuple[str, ...]
    root: str
    reports: str
    controller_ca_file: str
    client_ca_file: str
    rate: float
    modules: tuple[str, ...]
    targets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scenarios: tuple[str, ...] = ()
    confirm: str = ""
    lab: bool = False
    helper: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read a plan; raises ValueError and TypeError with what is wrong."""
        hosts = tuple(
            Host(
                name=one["name"],
                address=one["address"],
                groups=frozenset(one["groups"]),
                backup=bool(one["backup"]),
                ssh=tuple(map(str, one["ssh"])),
            )
            for one in data["hosts"]
        )
        listed = {one.name for one in fields(cls)} & {
            "mirrors", "playbook", "modules", "scenarios", "helper",
        }  # fmt: skip
        plan = cls(
            **{
                **data,
                **{name: tuple(data[name]) for name in listed if name in data},
                "hosts": hosts,
                "rate": float(data["rate"]),
            }
        )
        if not plan.group("edges") or not plan.group("backends"):
            raise ValueError("the inventory has no edges or no backends: there is nothing to drill")
        if not 1 <= plan.rate <= MAX_RATE:
            raise ValueError(
                f"drill_rate is {plan.rate:g}; it must be from 1 to {MAX_RATE} a second"
            )
        if not plan.modules:
            raise ValueError("drill_modules is empty; it must be MODULE@VERSIONs")
        for module in plan.modules:
            _check_module(module)
        return plan

    def group(self, name: str) -> list[Host]:
        """Give the hosts of a group, in the inventory's order."""
        return [host for host in self.hosts if name in host.groups]

    @property
    def primaries(self) -> list[Host]:
        """The backends that are no backup."""
        return [host for host in self.group("backends") if not host.backup]

    @property
    def clients(self) -> list[Host]:
        """Where the load comes from: the group, else this machine."""
        return self.group("clients") or [Host(name="controller", address="127.0.0.1")]

    @property
    def ca_file(self) -> str:
        """What the clients trust."""
        return self.client_ca_file if self.group("clients") else self.controller_ca_file

    @property
    def has(self) -> set[str]:
        """What scenarios may need, see catalogue.Scenario."""
        found = {
            "helper": bool(self.helper),
            "vip": bool(self.vip) and len(self.group("edges")) > 1,
            "backup": len(self.primaries) < len(self.group("backends")),
            "primaries": bool(self.primaries) and len(self.group("backends")) > 1,
        }
        return {name for name, offered in found.items() if offered}

    @property
    def allowed(self) -> list[str]:
        """The addresses that the load may go to."""
        edges = [edge.address for edge in self.group("edges")]
        return [self.vip, *edges] if self.vip else edges


def _check_module(module: object) -> None:
    path, _, version = str(module).partition("@")
    try:
        modpath.check(path, version)
    except modpath.InvalidPathError as error:
        raise ValueError(
            f"drill_modules must be MODULE@VERSIONs, and {module!r} is none: {error}"
        ) from None
