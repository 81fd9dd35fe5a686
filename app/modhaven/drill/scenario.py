"""One scenario from its preparation to its figures."""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modhaven import modpath
from modhaven.drill import catalogue, faults
from modhaven.drill.figures import Seen, judge, measure
from modhaven.drill.hosts import HostError
from modhaven.drill.observe import MUTABLE, Builds, Clocks, Edges, Loads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from modhaven.drill.catalogue import Fault, Scenario
    from modhaven.drill.figures import Request
    from modhaven.drill.hosts import Host, Program
    from modhaven.drill.plan import Plan

BEFORE_SECONDS, AFTER_SECONDS = 3.0, 2.0
WHOLE_SECONDS = 90.0
# Firmware takes its time.
REBOOT_SECONDS = 300.0
# Longer than any playbook takes; the load is bounded by it.
MOST_SECONDS = 550.0
# A host that was switched off has to boot.
MAKE_SECONDS = 120.0


class NotWholeError(HostError):
    """The cluster is not as it should be: nothing more may be broken."""


class Cluster:
    """The cluster that is drilled, and what is asked of it."""

    def __init__(self, plan: Plan, helper: faults.Helper) -> None:
        """Reach every host, and learn what files look like; HostError."""
        self.plan = plan
        self.helper = helper
        self.clocks = Clocks(list(dict.fromkeys([*plan.hosts, *plan.clients])))
        self.targets = catalogue.targets(plan.targets)
        self.ready_sha256 = ""
        self.files: list[tuple[str, str]] = []
        self.cold_modules: list[list[str]] = []
        self.builds_why_not = "" if plan.group("clients") else "the inventory has no clients"
        self._learn()

    def load_plan(self, files: Sequence[tuple[str, str]], number: int = 0) -> dict[str, Any]:
        """Plan a load of files, each after another client's, with what only backends answer."""
        start = number * len(files) // max(1, len(self.plan.clients))
        ready = {"url": f"{self.plan.url}/readyz", "sha256": self.ready_sha256}
        pairs = [
            ({"url": self.plan.url + path, "sha256": sha256}, ready)
            for path, sha256 in [*files[start:], *files[:start]]
        ]
        return self.one_each([target for pair in pairs for target in pair]) | {
            "seconds": MOST_SECONDS
        }

    def one_each(self, targets: Sequence[dict[str, str]], rate: float = 0.0) -> dict[str, Any]:
        """Plan a load that asks for each target once."""
        rate = rate or self.plan.rate
        return {
            "targets": list(targets),
            "allowed": self.plan.allowed,
            "addresses": dict(self.plan.addresses),
            "ca_file": self.plan.ca_file or None,
            "rate": rate,
            "seconds": len(targets) / rate,
            "timeout_seconds": 15,
        }

    def mutable(self, times: int = 6) -> list[dict[str, str]]:
        """Give lists and @latest of the plan's modules as targets, so many times."""
        paths = sorted(
            f"/{modpath.escape_path(module.partition('@')[0])}{end}"
            for module in self.plan.modules
            for end in MUTABLE
        )
        return [{"url": self.plan.url + path, "sha256": ""} for path in paths] * times

    def make_known(self) -> None:
        """Ask for everything once, so that the stores have it."""
        paths = [*self.files, *self._files_of_modules()]
        targets = [{"url": self.plan.url + path, "sha256": ""} for path, _ in paths]
        self._ask([*targets, *self.mutable(1)])
        if not self.builds_why_not:
            builds = Builds(self.plan.clients[0], self.clocks, [list(self.plan.modules)])
            try:
                builds.end()
            finally:
                builds.close()

    def _learn(self) -> None:
        ready = self._ask([{"url": f"{self.plan.url}/readyz", "sha256": ""}])
        (self.ready_sha256,) = ready.values()
        if self.helper:
            told: dict[str, Any] = self.helper.ask("files")
            self.files = [(one["path"], one["sha256"]) for one in told["files"]]
            modules = told["modules"]
            self.cold_modules = [modules[at : at + 2] for at in range(0, len(modules), 2)]
            return
        paths = [path for path, _ in self._files_of_modules()]
        found = self._ask([{"url": self.plan.url + path, "sha256": ""} for path in paths])
        self.files = [(path, found[self.plan.url + path]) for path in paths]

    def _files_of_modules(self) -> list[tuple[str, str]]:
        """Give the paths of the plan's modules. No .info: mirrors need not agree in its bytes."""
        found = []
        for module in self.plan.modules:
            path, _, version = module.partition("@")
            base = f"/{modpath.escape_path(path)}/@v/{modpath.escape_version(version)}"
            found += [(f"{base}.mod", ""), (f"{base}.zip", "")]
        return found

    def _ask(self, targets: Sequence[dict[str, str]]) -> dict[str, str]:
        """Ask for each once; give each body's SHA-256 by URL. HostError when one fails."""
        client = self.plan.clients[0]
        loads = Loads([client], self.clocks, lambda _: self.one_each(targets, rate=50))
        try:
            asked = loads.end(by_itself=True)
        finally:
            loads.close()
        failed = [one for one in asked if one.error]
        if failed:
            raise HostError(
                f"before anything was broken, {failed[0].url} gave {client.name} an error:"
                f" {failed[0].error}"
            )
        return {one.url: one.sha256 for one in asked}


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
        if edges.wait_until_whole(up=up, seconds=WHOLE_SECONDS) is None:
            raise NotWholeError(f"the cluster is not whole before it: {_how_it_stands(edges)}")
        loads = Loads(
            plan.clients, cluster.clocks, lambda number: cluster.load_plan(cluster.files, number)
        )
        stack.callback(loads.close)
        builds = _start_builds(scenario, cluster, stack)
        time.sleep(BEFORE_SECONDS)
        victims = _victims(scenario, plan, edges)
        if scenario.playbook:
            fault = time.time()
            _play(scenario, plan)
            undone = time.time()
        else:
            fault, undone = _break(scenario, cluster, victims, loads)
        cut = [
            (fault_made.kind, host.name)
            for fault_made in scenario.faults
            if fault_made.kind in faults.CUTTING
            for host in _hit(fault_made, victims)
            if "edges" in host.groups
        ]
        rebooted = [name for kind, name in cut if kind == "reboot"]
        patience = REBOOT_SECONDS if rebooted else WHOLE_SECONDS
        whole = edges.wait_until_whole(
            up=up, again=[name for _, name in cut], rebooted=rebooted, seconds=patience
        )
        time.sleep(AFTER_SECONDS)
        seen = Seen(
            requests=loads.end(),
            builds=builds.end() if builds else (),
            looks=edges.looks,
            fault=fault,
            undone=undone,
            whole=whole,
            lasts=any(one.kind not in faults.MOMENTARY for one in scenario.faults)
            or bool(scenario.playbook),
            victims=frozenset(host.name for host in victims),
            mirror=plan.mirrors[0] if any(one.on == "mirror" for one in scenario.faults) else "",
        )
    if whole is None:
        raise NotWholeError(
            f"the cluster was not whole again {patience:g} s later: {_how_it_stands(edges)}"
        )
    found = measure(seen)
    checks = judge(found, cluster.targets[scenario.target])
    return {
        **({"playbook": scenario.playbook} if scenario.playbook else {}),
        "victims": sorted(seen.victims),
        "figures": found,
        "checks": [asdict(check) for check in checks],
        "held": all(check.held for check in checks),
    }


def _break(
    scenario: Scenario, cluster: Cluster, victims: Sequence[Host], loads: Loads
) -> tuple[float, float]:
    """Make the faults, hold them, undo them; give both moments on this machine's clock."""
    with contextlib.ExitStack() as stack:
        made = []
        for fault in scenario.faults:
            for host, program in _hold(fault, cluster, victims):
                # The connection of a host that is rebooted breaks; there is nothing to undo.
                if fault.kind == "reboot":
                    stack.callback(program.kill)
                else:
                    stack.callback(program.end, MAKE_SECONDS)
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
        if scenario.target == "mirrors_lost":
            loads.requests.extend(_ask_for_lists(cluster, scenario.seconds))
        else:
            time.sleep(scenario.seconds)
        undone = time.time()
    return min(moments), undone


def _ask_for_lists(cluster: Cluster, seconds: float) -> list[Request]:
    targets = cluster.mutable()
    plan = cluster.one_each(targets, rate=len(targets) / seconds)
    lists = Loads(cluster.plan.clients[:1], cluster.clocks, lambda _: plan)
    try:
        return lists.end(by_itself=True)
    finally:
        lists.close()


def _hold(
    fault: Fault, cluster: Cluster, victims: Sequence[Host]
) -> Iterator[tuple[Host | None, Program]]:
    plan = cluster.plan
    if fault.on in ("mirror", "mirrors"):
        names = plan.mirrors[:1] if fault.on == "mirror" else plan.mirrors
        options = {"names": names, **fault.options}
        yield None, cluster.helper.hold(fault.kind, options)
        return
    for host in _hit(fault, victims):
        if fault.kind in faults.HOST_FAULTS:
            yield (
                host,
                faults.hold_on(host, fault.kind, fault.on, store=plan.store, vip=plan.vip),
            )
        else:
            yield None, cluster.helper.hold(fault.kind, {"host": host.name})


def _hit(fault: Fault, victims: Sequence[Host]) -> list[Host]:
    group = "edges" if fault.on in ("vip_master", "edges") else "backends"
    found = [host for host in victims if group in host.groups]
    return found if fault.on in ("edges", "primaries") else found[:1]


def _victims(scenario: Scenario, plan: Plan, edges: Edges) -> list[Host]:
    """Give the hosts that the faults hit: another one for the backend than for the edge."""
    holders = edges.holders()
    masters = [host for host in plan.group("edges") if host.name in holders]
    others = [host for host in plan.primaries if host.name not in holders] or plan.primaries
    whom = {
        "vip_master": masters,
        "edges": plan.group("edges"),
        "primary": others[:1],
        "primaries": plan.primaries,
    }
    found = [host for fault in scenario.faults for host in whom.get(fault.on, [])]
    return list(dict.fromkeys(found))


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


def _play(scenario: Scenario, plan: Plan) -> None:
    """Run the scenario's playbook to its end, also when the drill is stopped meanwhile.

    Half of one would leave a node drained.
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
            process.wait(MOST_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise HostError(
                f"{scenario.playbook} did not end within {MOST_SECONDS:g} s: {log}"
            ) from None
        finally:
            process.wait()
    if process.returncode:
        raise HostError(f"{scenario.playbook} failed: {log}")


def _how_it_stands(edges: Edges) -> str:
    looks = edges.last()
    told = [
        f"{look.edge} {'answers' if look.answers else 'does not answer'},"
        f" {'has the VIP, ' if look.vip else ''}finds up: {', '.join(sorted(look.up)) or 'nobody'}"
        for look in looks.values()
    ]
    told += [f"{name} cannot be watched" for name in edges.names if name not in looks]
    return "; ".join(told)
