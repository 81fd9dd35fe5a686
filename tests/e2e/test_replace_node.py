"""A machine died: a fresh one at its address takes its place, and nobody else is touched."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster
from tests.e2e.live import LAB, pool_states, under_load
from tests.e2e.playbook import play, vagrant
from tests.lab import faults, remote
from tests.lab.inventory import ROOT

if TYPE_CHECKING:
    from tests.e2e.conftest import Say

NODE = "backend2"
MOST_SECONDS = 90
SERVICES = ("nginx.service", "modhaven.service", "keepalived.service", "modhaven-pool.service")
pytestmark = pytest.mark.timeout(600)


def identities() -> list[str]:
    """Which process each service of the other nodes is."""
    return [
        remote.run(name, "systemctl", "show", *SERVICES, "--property=Id,MainPID").stdout
        for name in cluster.nodes()
        if name != NODE
    ]


def fresh_machine(name: str) -> float:
    """Put another machine in the place of a host's; gives the seconds that took."""
    vagrant(ROOT / LAB, "destroy", "--force", name)
    began = time.monotonic()
    vagrant(ROOT / LAB, "up", name, "--provider=lxc", "--no-provision")
    return time.monotonic() - began


def test_a_backend_whose_machine_is_gone_is_replaced_within_90_seconds(say: Say) -> None:
    cluster.wait_until_whole()
    before = identities()
    old = (ROOT / LAB / f".state/pki/hosts/{NODE}.crt").read_text()
    drained = play("playbooks/drain.yml", LAB, "-e", f"node={NODE}")
    assert drained.ok, drained.output

    machine = fresh_machine(NODE)
    # What makes it a machine of the lab: it finds the stand-ins for the public mirrors.
    prepared = play("tests/lab/lab.yml", LAB, "--limit", f"{NODE},mirrors")
    assert prepared.ok, prepared.output
    took, _ = under_load("playbooks/replace_node.yml", say, "-e", f"node={NODE}")

    say(f"a fresh machine in {machine:.0f} s, {NODE} on it in {took:.0f} s")
    assert took < MOST_SECONDS
    for edge in cluster.names("edges"):
        assert pool_states(edge)[NODE] == "up"
    assert identities() == before
    assert (ROOT / LAB / f".state/pki/hosts/{NODE}.crt").read_text() != old
    cluster.wait_until_whole()
    again = play("site.yml", LAB)
    assert again.ok, again.output
    assert again.changed() == {}, again.output


def test_an_edge_is_replaced_beside_a_dead_backend_and_asks_nobody_who_is_drained(say: Say) -> None:
    edge, drained, dead = cluster.names("edges")[1], NODE, cluster.backups()[0].name
    cluster.wait_until_whole()
    try:
        assert play("playbooks/drain.yml", LAB, "-e", f"node={drained}").ok
        fresh_machine(edge)
        with faults.host_stopped(dead):
            took, _ = under_load("playbooks/replace_node.yml", say, "-e", f"node={edge}")
            assert took < MOST_SECONDS
            assert pool_states(edge)[drained] == "drained"
            assert pool_states(edge)[dead] in ("down", "kept")
    finally:
        assert play("playbooks/undrain.yml", LAB, "-e", f"node={drained}").ok
    cluster.wait_until_whole()


def test_a_machine_that_does_not_answer_is_one_sentence_with_what_to_do() -> None:
    run = play("playbooks/replace_node.yml", LAB, "-e", f"node={NODE}", "-e", "ansible_port=2")
    assert not run.ok
    assert f"{NODE} cannot be reached at 10.0.3.22" in " ".join(run.output.split())
    assert "ssh-keygen -R 10.0.3.22" in " ".join(run.output.split())
