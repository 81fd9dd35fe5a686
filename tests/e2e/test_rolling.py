"""Operations on a live cluster that nobody notices: update, rollback, draining by playbook."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster
from tests.e2e.live import LAB, pool_states, under_load
from tests.e2e.playbook import play
from tests.lab import faults, remote
from tests.lab.inventory import lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Say

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", autouse=True)
def _as_it_was() -> Iterator[None]:
    """Whatever the tests have told the nodes: site.yml puts it right."""
    yield
    assert play("site.yml", LAB).ok


@pytest.fixture(autouse=True)
def _whole() -> Iterator[None]:
    cluster.wait_until_whole()
    yield
    cluster.wait_until_whole()


def releases(host: str) -> list[str]:
    return remote.run(host, "ls", "-1t", "/opt/modhaven/releases").stdout.split()


def current(host: str) -> str:
    return remote.run(host, "readlink", "/opt/modhaven/current").stdout.strip()


def test_an_update_one_node_at_a_time_fails_no_request(say: Say) -> None:
    # Another value of something that every node is told.
    under_load("playbooks/update.yml", say, "-e", "modhaven_mutable_seconds=61")
    for edge in cluster.names("edges"):
        assert set(pool_states(edge).values()) == {"up"}
        assert remote.run(edge, "test", "-e", "/etc/modhaven/vip-stay-out", check=False).returncode
    for name in cluster.names("backends"):
        assert "mutable_seconds: 61" in remote.run(name, "cat", "/etc/modhaven/modhaven.yml").stdout
    assert len(cluster.vip_holders()) == 1


def test_an_update_that_fails_half_way_stops_there_and_a_rollback_makes_it_whole(say: Say) -> None:
    first, broken, last = cluster.names("backends")
    folder = "/etc/systemd/system/modhaven.service.d"
    remote.run(broken, "mkdir", "-p", folder)
    remote.put(broken, f"{folder}/broken.conf", "[Service]\nExecStartPre=/bin/false\n")
    now = {name: current(name) for name in cluster.names("backends")}
    # Another release, though of the same program.
    before = {name: f"{release}-before" for name, release in now.items()}
    try:
        # A changed unit has to be started anew.
        option = ("-e", "backend_stop_timeout_seconds=61")
        _, said = under_load("playbooks/update.yml", say, *option, succeeds=False)
        assert f"failed on {broken}. It may still be drained" in " ".join(said.split())
        for edge in cluster.names("edges"):
            states = pool_states(edge)
            assert (states[first], states[broken], states[last]) == ("up", "drained", "up")
        unit = "/etc/systemd/system/modhaven.service"
        assert "TimeoutStopSec=66" in remote.run(first, "cat", unit).stdout
        assert "TimeoutStopSec=66" not in remote.run(last, "cat", unit).stdout

        remote.run(broken, "rm", "-r", folder)
        remote.run(broken, "systemctl", "daemon-reload")
        for name, release in before.items():
            remote.run(name, "cp", "-a", now[name], release)
            remote.run(name, "ln", "-sfn", release, "/opt/modhaven/previous")
        took, _ = under_load("playbooks/rollback.yml", say)
        # What the operator was promised; this machine carries all the hosts.
        assert took < 60
        assert {name: current(name) for name in before} == before
        for edge in cluster.names("edges"):
            assert set(pool_states(edge).values()) == {"up"}

        # Once more is no way forward again.
        again = play("playbooks/rollback.yml", LAB)
        assert again.ok, again.output
        assert {name: current(name) for name in before} == before
    finally:
        remote.run(broken, "rm", "-rf", folder)
        assert play("site.yml", LAB, "--limit", "backends").ok
        for name, release in before.items():
            remote.run(name, "rm", "-rf", release, "/opt/modhaven/previous")
    assert {name: current(name) for name in now} == now


def test_an_update_with_an_edge_dead_updates_the_others_and_names_it() -> None:
    (alive,) = cluster.vip_holders()
    (dead,) = (name for name in cluster.names("edges") if name != alive)
    with faults.host_stopped(dead):
        run = play("playbooks/update.yml", LAB, "-e", "modhaven_mutable_seconds=62")
        assert not run.ok
        assert run.recap[dead]["unreachable"] == 1
        assert all(counts["failed"] == 0 for counts in run.recap.values()), run.output
        assert set(pool_states(alive).values()) == {"up"}
        assert cluster.vip_holders() == [alive]
        for name in cluster.names("backends"):
            text = remote.run(name, "cat", "/etc/modhaven/modhaven.yml").stdout
            assert "mutable_seconds: 62" in text


def test_the_last_living_backend_is_updated_and_asked_all_the_time() -> None:
    (edge, *_), (alive, *dead) = cluster.names("edges"), cluster.names("backends")
    try:
        with contextlib.ExitStack() as faulty:
            for name in dead:
                faulty.enter_context(faults.host_stopped(name))
            remote.wait_until(
                "the edge to leave them out",
                lambda: {pool_states(edge)[name] for name in dead} <= {"down", "kept"},
                20,
            )
            option = ("-e", "backend_stop_timeout_seconds=62")
            run = play("playbooks/update.yml", LAB, *option)
        # 4: hosts did not answer; the recap names them.
        assert not run.ok
        assert f"{alive} is the only backend that is ready, and asked all the time" in run.output
        assert all(run.recap[name]["unreachable"] for name in dead)
        unit = remote.run(alive, "cat", "/etc/systemd/system/modhaven.service").stdout
        assert "TimeoutStopSec=67" in unit
    finally:
        assert play("site.yml", LAB, "--limit", "backends").ok


def test_without_a_release_to_go_back_to_nothing_is_changed() -> None:
    name = cluster.names("backends")[0]
    remote.run(name, "rm", "-f", "/opt/modhaven/previous")
    before = current(name)
    run = play("playbooks/rollback.yml", LAB)
    assert not run.ok
    assert f"{name} has no release before the present one" in run.output
    assert "nothing was changed" in run.output
    assert current(name) == before


def test_a_backend_is_drained_and_undrained_by_playbook_with_an_edge_dead() -> None:
    alive, dead = cluster.names("edges")
    with faults.host_stopped(dead):
        drained = play("playbooks/drain.yml", LAB, "-e", "node=backend2")
        assert drained.ok, drained.output
        assert f"backend2 is drained on {alive}; not reached: {dead}" in drained.output
        assert pool_states(alive)["backend2"] == "drained"
        undrained = play("playbooks/undrain.yml", LAB, "-e", "node=backend2")
        assert undrained.ok, undrained.output
        assert f"backend2 is asked by {alive}; not reached: {dead}" in undrained.output
        assert pool_states(alive)["backend2"] == "up"


@pytest.mark.parametrize("playbook", ["drain", "undrain"])
def test_without_an_edge_that_hears_it_nothing_is_said_to_be_done(playbook: str) -> None:
    run = play(f"playbooks/{playbook}.yml", LAB, "-e", "node=backend2", "-e", "ansible_port=2")
    assert not run.ok
    assert f"No edge could be reached, of {', '.join(cluster.names('edges'))}: " in run.output


def test_a_name_that_is_no_backend_is_one_sentence() -> None:
    run = play("playbooks/drain.yml", LAB, "-e", "node=backend9")
    assert not run.ok
    assert "Name a backend of the inventory: -e node=NAME, one of backend1, backend2" in run.output
    assert lab().group("backends")
