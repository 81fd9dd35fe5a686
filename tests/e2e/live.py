"""Playbooks on the live cluster, under the load of a client that must not notice."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from tests.e2e import cluster, origin
from tests.e2e.playbook import play
from tests.lab import faults, remote
from tests.lab.load_client import load_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Say

LAB = "inventories/lab"
RATE = 20
MOST_SECONDS = 500
SERVICE = "/etc/systemd/system/modhaven.service"
POOL_SERVICE = "/etc/systemd/system/modhaven-pool.service"


def pool_states(edge: str) -> dict[str, str]:
    """Give the state of each backend in an edge's pool."""
    return {server["name"]: server["state"] for server in cluster.pool_status(edge)["servers"]}


def under_load(
    playbook: str, say: Say, *arguments: str, succeeds: bool = True
) -> tuple[float, str]:
    """Run a playbook while a client loads files: no request may fail, whatever the playbook does.

    Give its seconds and its output.
    """
    files = origin.files()
    cluster.forget_edge_caches()
    plan = cluster.load_plan(files, rate=RATE) | {"seconds": MOST_SECONDS}
    began = time.monotonic()
    with load_from(cluster.client(), plan) as load:
        run = play(playbook, LAB, *arguments)
        took = time.monotonic() - began
        result = load.enough()
    say(f"{playbook} in {took:.0f} s: {cluster.figures(result)}")
    assert run.ok is succeeds, run.output
    assert took < MOST_SECONDS, "the load ended before the playbook did"
    assert result["sent"] > RATE * took / 2
    assert result["failed"] == 0, result["failures"]
    return took, run.output


@contextlib.contextmanager
def refuses_to_start(host: str, unit: str, text: str) -> Iterator[None]:
    """A host on which a service does not start while its unit has this text in it."""
    with _before_it_starts(host, unit, f"/bin/sh -c '! grep -q {text} {unit}'"):
        yield


@contextlib.contextmanager
def lost_at_start(host: str, unit: str, text: str, command: str) -> Iterator[None]:
    """A host that a command loses, as a service starts whose unit has this text."""
    # Once: it is to come back.
    lose = f"if grep -q {text} {unit}; then rm -r {unit}.d; {command}; fi"
    with _before_it_starts(host, unit, f"+/bin/sh -c '{lose}'"):
        try:
            yield
        finally:
            faults.power_cycle(host)


@contextlib.contextmanager
def _before_it_starts(host: str, unit: str, command: str) -> Iterator[None]:
    remote.run(host, "mkdir", "-p", f"{unit}.d")
    remote.put(host, f"{unit}.d/fault.conf", f"[Service]\nExecStartPre={command}\n")
    try:
        yield
    finally:
        remote.run(host, "rm", "-rf", f"{unit}.d")
        remote.run(host, "systemctl", "daemon-reload")
