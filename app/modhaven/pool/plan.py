"""Which backends nginx is to ask: a pure function of the inventory and of what is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from modhaven.pool.names import is_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from modhaven.pool.settings import Server

# 0.29 * 100 is a little less than 29.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One backend in the pool: asked, or left out: down, drained, joining or (a backup) resting.

    ``doubted``: asked without being ready, since too few are; nginx may leave it out by itself.
    """

    server: Server
    reason: str = ""
    doubted: bool = False

    @property
    def asked(self) -> bool:
        """Whether requests go there."""
        return not self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The pool as it is to be. ``kept``: too few would be left, so that others are asked too.

    ``promoted``: backups serve beside the others. ``balance`` is the pool's (settings.PoolConfig).
    """

    places: tuple[Place, ...]
    balance: str = "least_conn"
    kept: bool = False
    promoted: bool = False


def make(
    servers: Sequence[Server],
    states: Mapping[str, str],
    *,
    drained: Collection[str],
    max_removed_share: float,
    promote: bool,
    balance: str = "least_conn",
) -> Plan:
    """Return the plan; ``states`` has ``up``, ``down`` or ``joining`` by name.

    ``max_removed_share`` is of those who would be asked if all were well: a drained backend is out
    because somebody said so, and one that joins was never in. A pool in which nobody would be asked
    is no pool: then everyone is who was not drained, or else everyone, without those whose name has
    no address. Where backups alone are ready, those that are kept stand in for them. nginx knows no
    backups where it balances by hash: there they rest, out of the pool, while another server is
    asked.
    """
    candidates = [server for server in servers if server.name not in drained]
    failed = sum(states[server.name] == "down" for server in candidates)
    ready = sum(states[server.name] == "up" for server in candidates)
    kept = failed > max_removed_share * (failed + ready) + _ROUNDING

    def reason(server: Server) -> str:
        state = "drained" if server.name in drained else states[server.name]
        found = not is_name(server.address)
        if state == "up" or (kept and state == "down" and found):
            return ""
        # nginx looks up who is out as well: without an address nobody is in its file.
        return state if found else "joining"

    places = [Place(server=server, reason=reason(server)) for server in servers]
    if not any(place.asked for place in places):
        # nginx itself finds out who answers.
        anyone = candidates or servers
        found = [server for server in anyone if not is_name(server.address)]
        asked = {server.name for server in found or anyone}
        places = [
            replace(place, reason="" if place.server.name in asked else place.reason)
            for place in places
        ]
        kept = True
    places = [
        replace(place, doubted=place.asked and states[place.server.name] != "up")
        for place in places
    ]
    promoted = promote and any(server.backup for server in servers)
    if promoted:
        places = [replace(place, server=replace(place.server, backup=False)) for place in places]
    elif balance == "hash":
        places = places if kept else _with_resting_backups(places)
    elif kept:
        places = _with_ready_backups_first(places)
    return Plan(places=tuple(places), balance=balance, kept=kept, promoted=promoted)


def _with_ready_backups_first(places: Sequence[Place]) -> list[Place]:
    """Where backups alone are ready, let nginx ask them before those that are doubted.

    It asks no backup before every other one has failed, and a request has only so many tries.
    """
    ready = [place.server for place in places if place.asked and not place.doubted]
    if not ready or not all(server.backup for server in ready):
        return list(places)
    return [replace(place, server=replace(place.server, backup=place.doubted)) for place in places]


def _with_resting_backups(places: Sequence[Place]) -> list[Place]:
    if not any(place.asked and not place.server.backup for place in places):
        return list(places)
    return [
        replace(place, reason="resting") if place.asked and place.server.backup else place
        for place in places
    ]
