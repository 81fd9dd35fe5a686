"""Runs a drill: ``python3 -m modhaven.drill``, started by playbooks/drill.yml.

The plan (see plan.Plan) is the first line of standard input. Lines for people go to standard
output. When its input ends, or at SIGTERM or SIGINT, everything is undone and the report says how
far it came. Exit status 0: every target was held; 1: not; 2: nothing was done, and why.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from modhaven.drill import catalogue, environment, faults, report, scenario, targets
from modhaven.drill.cluster import Cluster
from modhaven.drill.hosts import HostError
from modhaven.drill.plan import Plan

if TYPE_CHECKING:
    from modhaven.drill.catalogue import Scenario


class Stopped(BaseException):
    """Somebody wants no more of it."""


def say(text: str = "") -> None:
    """Print a line for people, now; nobody may be listening any more."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def main() -> int:
    """Run the plan on standard input."""
    try:
        plan = Plan.from_json(json.loads(sys.stdin.readline()))
        if plan.scenarios == ("list",):
            say(report.columns(catalogue.rows()))
            return 0
        chosen, left = catalogue.choose(plan.scenarios, lab=plan.lab, has=plan.has)
        targets.check_rate(plan.rate, chosen, targets.read(plan.targets))
    except (ValueError, TypeError, KeyError) as error:
        say(f"The drill cannot be run: {error}")
        return 2
    if not chosen:
        say("The drill cannot be run: this inventory has nothing that the safe scenarios need.")
        return 2
    if not plan.lab and plan.confirm.lower() not in ("yes", "true"):
        say(_warning(plan, chosen))
        return 2
    _listen_for_the_end()
    return drill(plan, chosen, left)


def drill(plan: Plan, chosen: list[Scenario], left: dict[str, str]) -> int:
    """Run scenarios, and write the report whatever happens; give the exit status."""
    began = time.monotonic()
    name = time.strftime("drill-%Y%m%d-%H%M%S", time.gmtime())
    Path(plan.reports).mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    told: dict[str, Any] = {"hosts": {}}
    stopped = ""
    still_broken: list[str] = []
    try:
        told |= environment.describe(plan)
        _run_all(plan, chosen, results, still_broken)
    except Stopped:
        stopped = "it was told to end"
    except (HostError, OSError) as error:
        stopped = str(error)
    except Exception as error:  # noqa: BLE001 - what was measured until then is told
        stopped = f"an error of the drill itself, {type(error).__name__}: {error}"
    for one in catalogue.SCENARIOS:
        why = left.get(one.name, f"the drill ended first: {stopped}")
        results.setdefault(one.name, {"outcome": "not run", "why": why})
        results[one.name] |= {"name": one.name, "title": one.title, "target": one.target}
    told["took"] = f"{time.monotonic() - began:.0f} s"
    ordered = [results[one.name] for one in catalogue.SCENARIOS]
    report_of = {
        "results": ordered,
        "targets": targets.read(plan.targets),
        "environment": told,
        "stopped": stopped,
        "still_broken": still_broken,
    }
    paths = report.write(Path(plan.reports), name, report_of)
    ran = [one for one in ordered if one["outcome"] != "not run"]
    if ran:
        say(f"\n{report.columns(report.table(ran))}\n")
    if stopped:
        say(f"The drill ended before its end: {stopped}. {report.undone(still_broken)}")
    for path in paths:
        say(f"Report: {path}")
    return 0 if not stopped and all(one["outcome"] == "held" for one in ran) else 1


def _run_all(
    plan: Plan,
    chosen: list[Scenario],
    results: dict[str, dict[str, Any]],
    still_broken: list[str],
) -> None:
    """Run scenarios into ``results``; HostError when nothing more can be run."""
    helper = faults.Helper(plan.helper, plan.root)
    cluster = Cluster(plan, helper, still_broken)
    with contextlib.ExitStack() as stack:
        if helper:
            stack.callback(helper.ask, "restore")
        if cluster.builds_why_not:
            say(f"No builds are run: {cluster.builds_why_not}.")
        for number, one in enumerate(chosen, 1):
            say(f"[{number}/{len(chosen)}] {one.name}: {one.title}")
            results[one.name] = _run(one, cluster)
            say(f"    {report.line(results[one.name])}")
            if results[one.name].get("not_whole"):
                raise HostError(f"the cluster is not whole, see {one.name}")


def _run(one: Scenario, cluster: Cluster) -> dict[str, Any]:
    try:
        found = scenario.run(one, cluster)
    except (HostError, OSError) as error:
        not_whole = isinstance(error, scenario.NotWholeError)
        return {"outcome": "failed", "why": str(error), "not_whole": not_whole}
    return {"outcome": "held" if found["held"] else "missed", **found}


def _warning(plan: Plan, chosen: list[Scenario]) -> str:
    head = (
        f"This would break parts of {plan.inventory} on purpose, under"
        f" {plan.rate * len(plan.clients):g} requests a second:"
    )
    foot = (
        "Nothing was done. To do it: -e drill_confirm=yes, and -e drill_scenarios=NAME,NAME to"
        " choose; -e drill_scenarios=list shows all there are."
    )
    return "\n".join([head, *(f"    {one.name}: {one.title}" for one in chosen), foot])


def _listen_for_the_end() -> None:
    def stop(_signal: int, _frame: object) -> NoReturn:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise Stopped

    def wait_for_end() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=wait_for_end, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
