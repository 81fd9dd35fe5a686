"""Which backends nginx is to ask: a pure function of the inventory and of what is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from modhaven.pool.settings import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One backend in the pool: asked, or listed as ``down`` with the reason."""

    server: Server
    reason: str = ""

    @property
    def asked(self) -> bool:
        """Whether requests go there."""
        return not self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The pool as it is to be. ``kept``: too many are down, so that all are asked but drained ones.

    ``promoted``: backups serve beside the others.
    """

    places: tuple[Place, ...]
    kept: bool = False
    promoted: bool = False


def make(
    servers: Sequence[Server],
    states: Mapping[str, str],
    *,
    drained: Collection[str],
    max_removed_share: float,
    promote: bool,
) -> Plan:
    """Return the plan; ``states`` has ``up``, ``down`` or ``joining`` by name.

    A drained backend is out because somebody said so, and counts for no share. A pool in which
    nobody would be asked is no pool: then everyone is who was not drained, or else everyone.
    """
    candidates = [server for server in servers if server.name not in drained]
    failed = [server for server in candidates if states[server.name] == "down"]
    ready = [server for server in candidates if states[server.name] == "up"]
    kept = bool(failed) and (not ready or len(failed) > max_removed_share * len(servers))

    def reason(server: Server) -> str:
        if server.name in drained:
            return "drained"
        state = states[server.name]
        return "" if state == "up" or (kept and state == "down") else state

    places = [Place(server=server, reason=reason(server)) for server in servers]
    if not any(place.asked for place in places):
        # nginx itself finds out who answers.
        places = [
            Place(
                server=place.server,
                reason="drained" if candidates and place.reason == "drained" else "",
            )
            for place in places
        ]
        kept = True
    if promote:
        places = [replace(place, server=replace(place.server, backup=False)) for place in places]
    return Plan(places=tuple(places), kept=kept, promoted=promote)
