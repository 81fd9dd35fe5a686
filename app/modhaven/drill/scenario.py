"""One scenario from its preparation to its figures."""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modhaven.drill import faults
from modhaven.drill.breaking import break_and_undo, choose_hits, names
from modhaven.drill.edges import Edges
from modhaven.drill.figures import Seen, judge, measure
from modhaven.drill.hosts import HostError
from modhaven.drill.observe import Builds, Loads
from modhaven.drill.plan import LOAD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modhaven.drill.breaking import Hit
    from modhaven.drill.catalogue import Scenario
    from modhaven.drill.cluster import Cluster
    from modhaven.drill.figures import Request
    from modhaven.drill.plan import Plan

BEFORE_SECONDS, AFTER_SECONDS = 3.0, 2.0
WHOLE_SECONDS = 90.0
# Firmware takes its time.
REBOOT_SECONDS = 300.0
# Fewer of the requests that were due tell nothing: the rest, too, has met with something.
_SENT_SHARE = 0.9


class NotWholeError(HostError):
    """The cluster is not as it should be: nothing more may be broken."""


def run(scenario: Scenario, cluster: Cluster) -> dict[str, Any]:
    """Run a scenario; give its figures, checks and whether all held.

    HostError when it could not be made or measured; whatever ends it, its faults are undone.
    """
    plan = cluster.plan
    if scenario.files == "known":
        cluster.make_known()
    if cluster.helper:
        cluster.helper.ask("before", scenario.name, scenario.files)
    with contextlib.ExitStack() as stack:
        edges = Edges(plan.group("edges"), cluster.clocks, vip=plan.vip, port=plan.port)
        stack.callback(edges.close)
        up = frozenset(host.name for host in plan.group("backends"))
        _wait_before(scenario, edges, up)
        loads = Loads(
            plan.clients, cluster.clocks, lambda number: cluster.load_plan(cluster.files, number)
        )
        stack.callback(loads.close)
        began = time.monotonic()
        builds = _start_builds(scenario, cluster, stack)
        time.sleep(BEFORE_SECONDS)
        hits = choose_hits(scenario, plan, edges.holders())
        if scenario.playbook:
            fault = time.time()
            _play(scenario, plan, until=began + LOAD_SECONDS)
            undone = time.time()
        elif scenario.target == "mirrors_lost":
            fault, undone = break_and_undo(
                hits,
                cluster,
                lambda: loads.requests.extend(_ask_for_lists(cluster, scenario.seconds)),
            )
        else:
            fault, undone = break_and_undo(hits, cluster, lambda: time.sleep(scenario.seconds))
        cut, rebooted = _cut(hits, *faults.CUTTING), _cut(hits, "reboot")
        patience = REBOOT_SECONDS if rebooted else WHOLE_SECONDS
        whole = edges.wait_until_whole(up=up, again=cut, rebooted=rebooted, seconds=patience)
        time.sleep(AFTER_SECONDS)
        due = plan.rate * len(plan.clients) * min(time.monotonic() - began, LOAD_SECONDS)
        seen = Seen(
            requests=loads.end(),
            builds=builds.end() if builds else (),
            looks=edges.looks,
            fault=fault,
            undone=undone,
            whole=whole,
            lasts=any(one.kind not in faults.MOMENTARY for one in scenario.faults)
            or bool(scenario.playbook),
            lost_edges=names(hits, "vip_master"),
            lost_backends=names(hits, "primary", "primaries"),
            cut=frozenset(cut),
            mirror=plan.mirrors[0] if any(one.on == "mirror" for one in scenario.faults) else "",
        )
    if whole is None:
        raise NotWholeError(
            f"the cluster was not whole again {patience:g} s later: {_how_it_stands(edges)}"
        )
    check_sent(seen.requests, due)
    found = measure(seen)
    checks = judge(found, cluster.targets[scenario.target])
    return {
        **({"playbook": scenario.playbook} if scenario.playbook else {}),
        "victims": sorted(names(hits)),
        "figures": found,
        "checks": [asdict(check) for check in checks],
        "held": all(check.held for check in checks),
    }


def check_sent(requests: Sequence[Request], due: float) -> None:
    """Raise HostError where far fewer requests were sent than were due."""
    sent = sum(not one.mutable for one in requests)
    if sent < _SENT_SHARE * due:
        raise HostError(
            f"only {sent} of the {due:.0f} requests that were due were sent: a client is too slow"
            " for drill_rate, or its load has ended early"
        )


def _wait_before(scenario: Scenario, edges: Edges, up: frozenset[str]) -> None:
    """Wait until the cluster is whole, and the VIP has where to go if it is to move; HostError."""
    moves = any(one.on == "vip_master" for one in scenario.faults)
    if edges.wait_until_whole(up=up, successor=moves, seconds=WHOLE_SECONDS) is not None:
        return
    if moves and edges.wait_until_whole(up=up, seconds=1) is not None:
        others = ", ".join(name for name in edges.names if name not in edges.holders())
        raise HostError(
            f"no other edge can take the VIP: on {others} nginx does not answer, or keepalived"
            f" does not run, or {faults.STAY_OUT} is there; nothing was broken"
        )
    raise NotWholeError(f"the cluster is not whole before it: {_how_it_stands(edges)}")


def _cut(hits: Sequence[Hit], *kinds: str) -> list[str]:
    """Give the edges that are hit by a fault of these kinds."""
    return [
        host.name
        for hit in hits
        for host in hit.hosts
        if hit.fault.kind in kinds and "edges" in host.groups
    ]


def _ask_for_lists(cluster: Cluster, seconds: float) -> list[Request]:
    targets = cluster.mutable()
    plan = cluster.one_each(targets, rate=len(targets) / seconds)
    lists = Loads(cluster.plan.clients[:1], cluster.clocks, lambda _: plan)
    try:
        return lists.end(by_itself=True)
    finally:
        lists.close()


def _start_builds(
    scenario: Scenario, cluster: Cluster, stack: contextlib.ExitStack
) -> Builds | None:
    if cluster.builds_why_not:
        return None
    cold = scenario.files == "cold" and cluster.cold_modules
    modules = cluster.cold_modules if cold else [list(cluster.plan.modules)]
    builds = Builds(cluster.plan.clients[0], cluster.clocks, modules)
    stack.callback(builds.close)
    return builds


def _play(scenario: Scenario, plan: Plan, *, until: float) -> None:
    """Run the scenario's playbook to its end, also when the drill is stopped meanwhile.

    Half of one would leave a node drained. HostError when it fails, and when it ends after the
    load, ``until`` (time.monotonic()): what users saw of the rest nobody knows.
    """
    log = Path(plan.reports) / f"drill-{scenario.name}.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(  # noqa: S603 - the inventory's own playbooks
            [*plan.playbook, scenario.playbook],
            cwd=plan.root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait()
        finally:
            # Whoever is told to end is told so once.
            process.wait()
    if process.returncode:
        raise HostError(f"{scenario.playbook} failed: {log}")
    if time.monotonic() > until:
        raise HostError(f"{scenario.playbook} took longer than the load, {LOAD_SECONDS:g} s: {log}")


def _how_it_stands(edges: Edges) -> str:
    looks = edges.last()
    told = [
        f"{look.edge} {'answers' if look.answers else 'does not answer'},"
        f" {'has the VIP, ' if look.vip else ''}finds up: {', '.join(sorted(look.up)) or 'nobody'}"
        for look in looks.values()
    ]
    told += [f"{name} cannot be watched" for name in edges.names if name not in looks]
    return "; ".join(told)
