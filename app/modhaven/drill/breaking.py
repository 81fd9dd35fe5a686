"""Makes the faults of a scenario on whom they hit, holds them, and undoes them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modhaven.drill import faults
from modhaven.drill.hosts import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from modhaven.drill.catalogue import Fault, Scenario
    from modhaven.drill.cluster import Cluster
    from modhaven.drill.hosts import Host, Program
    from modhaven.drill.plan import Plan

# A host that was switched off has to boot.
MAKE_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A fault, and the hosts that it hits: none where it hits mirrors."""

    fault: Fault
    hosts: tuple[Host, ...]


def choose_hits(scenario: Scenario, plan: Plan, holders: Sequence[str]) -> list[Hit]:
    """Give whom each fault hits, ``holders`` having the VIP: the backend is another host.

    HostError where there is no such host.
    """
    masters = [host for host in plan.group("edges") if host.name in holders]
    others = [host for host in plan.primaries if host.name not in holders]
    whom = {
        "vip_master": masters,
        "edges": plan.group("edges"),
        "primary": (others or plan.primaries)[:1],
        "primaries": plan.primaries,
    }
    hits = [Hit(fault=one, hosts=tuple(whom.get(one.on, ()))) for one in scenario.faults]
    for hit in hits:
        if hit.fault.on in whom and not hit.hosts:
            raise HostError(f"{scenario.name} found no {hit.fault.on} to hit")
    every = [host.name for hit in hits for host in hit.hosts]
    if len(set(every)) < len(every):
        raise HostError(
            f"{scenario.name} needs a backend beside the edge that has the VIP, and no backup:"
            f" there is only {every[0]}"
        )
    return hits


def names(hits: Sequence[Hit], *on: str) -> frozenset[str]:
    """Give the hosts that are hit; those that are hit for what they are, see catalogue.Fault.on."""
    return frozenset(
        host.name for hit in hits for host in hit.hosts if not on or hit.fault.on in on
    )


def break_and_undo(
    hits: Sequence[Hit], cluster: Cluster, meanwhile: Callable[[], object]
) -> tuple[float, float]:
    """Make the faults together, call ``meanwhile``, undo them; give both moments, on this clock.

    HostError when one could not be made or undone.
    """
    problems: list[str] = []
    with contextlib.ExitStack() as stack:
        made = []
        for hit in hits:
            for host, program in _hold(hit, cluster):
                # The connection of a host that is rebooted breaks; there is nothing to undo.
                if hit.fault.kind == "reboot":
                    stack.callback(program.kill)
                else:
                    stack.callback(_undo, program, host, problems, cluster.still_broken)
                made.append((host, program))
        for _, program in made:
            program.wait_for("ready", MAKE_SECONDS)
        for _, program in made:
            program.tell("go")
        moments = [
            moment if host is None else cluster.clocks.here(host, moment)
            for host, program in made
            for moment in [float(program.wait_for("on", MAKE_SECONDS))]
        ]
        for _, program in made:
            program.wait_for("made", MAKE_SECONDS)
        meanwhile()
        undone = time.time()
    if problems:
        raise HostError("; ".join(problems))
    return min(moments), undone


def _undo(
    program: Program, host: Host | None, problems: list[str], still_broken: list[str]
) -> None:
    """Let a fault go; raise nothing, since that would hide that the drill was told to end."""
    try:
        with contextlib.suppress(HostError):
            program.end(MAKE_SECONDS)
    finally:
        # Whoever is told to end is told so once, and this is waited for all the same.
        try:
            program.end(MAKE_SECONDS)
        except HostError as error:
            problems.append(str(error))
            # One that could not be made ends with an error, too.
            if program.has_said("ready") and not program.has_said("undone"):
                still_broken.append(program.name + (_by_itself(host) if host else ""))


def _by_itself(host: Host) -> str:
    return f" ({host.name} undoes it {faults.DEADMAN_SECONDS} s after it was prepared)"


def _hold(hit: Hit, cluster: Cluster) -> Iterator[tuple[Host | None, Program]]:
    plan, fault = cluster.plan, hit.fault
    if fault.on in ("mirror", "mirrors"):
        mirrors = plan.mirrors[:1] if fault.on == "mirror" else plan.mirrors
        options = {"names": mirrors, **fault.options}
        yield None, cluster.helper.hold(fault.kind, options)
        return
    for host in hit.hosts:
        if fault.kind in faults.HOST_FAULTS:
            yield (
                host,
                faults.hold_on(host, fault.kind, fault.on, store=plan.store, vip=plan.vip),
            )
        else:
            yield None, cluster.helper.hold(fault.kind, {"host": host.name})
