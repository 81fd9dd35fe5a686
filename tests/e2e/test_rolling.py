"""Operations on a live cluster that nobody notices: update, rollback, draining by playbook."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster
from tests.e2e.live import (
    LAB,
    POOL_SERVICE,
    SERVICE,
    lost_at_start,
    pool_states,
    refuses_to_start,
    under_load,
)
from tests.e2e.playbook import play
from tests.lab import faults, remote
from tests.lab.inventory import lab
from tests.lab.web import get

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


@pytest.fixture
def release_before() -> Iterator[dict[str, str]]:
    """Where each node's release before is: another one, though of the same program."""
    names = cluster.nodes()
    now = {name: current(name) for name in names}
    before = {name: f"{release}-before" for name, release in now.items()}
    for name, release in before.items():
        remote.run(name, "cp", "-a", now[name], release)
        remote.run(name, "ln", "-sfn", release, "/opt/modhaven/previous")
    yield before
    # Whoever rolls back goes forward again.
    assert {name: current(name) for name in names} == now
    for name, release in before.items():
        remote.run(name, "rm", "-rf", release, "/opt/modhaven/previous")


def test_a_rollback_and_an_update_fail_no_request(release_before: dict[str, str], say: Say) -> None:
    managers = {
        edge: remote.unit_property(edge, "modhaven-pool.service", "MainPID")
        for edge in cluster.names("edges")
    }
    took, _ = under_load("playbooks/rollback.yml", say)
    # What the operator was promised; this machine carries all the hosts.
    assert took < 60
    assert {name: current(name) for name in release_before} == release_before
    for edge in cluster.names("edges"):
        assert set(pool_states(edge).values()) == {"up"}
        assert remote.unit_property(edge, "modhaven-pool.service", "MainPID") != managers[edge]

    # Once more is no way forward again.
    again = play("playbooks/rollback.yml", LAB)
    assert again.ok, again.output
    assert {name: current(name) for name in release_before} == release_before

    # This is, with another value of something that every node is told.
    under_load("playbooks/update.yml", say, "-e", "modhaven_mutable_seconds=61")
    for edge in cluster.names("edges"):
        assert set(pool_states(edge).values()) == {"up"}
        assert remote.run(edge, "test", "-e", "/etc/modhaven/vip-stay-out", check=False).returncode
    for name in cluster.names("backends"):
        assert "mutable_seconds: 61" in remote.run(name, "cat", "/etc/modhaven/modhaven.yml").stdout
    assert len(cluster.vip_holders()) == 1


def test_with_an_edge_dead_a_rollback_takes_less_than_a_minute_and_an_update_names_it(
    release_before: dict[str, str],
) -> None:
    (alive,) = cluster.vip_holders()
    (dead,) = (name for name in cluster.names("edges") if name != alive)
    changed = (alive, *cluster.names("backends"))
    with faults.host_stopped(dead):
        began = time.monotonic()
        rollback = play("playbooks/rollback.yml", LAB)
        assert time.monotonic() - began < 60
        assert [current(name) for name in changed] == [release_before[name] for name in changed]
        update = play("playbooks/update.yml", LAB, "-e", "modhaven_mutable_seconds=62")
        for run in (rollback, update):
            assert not run.ok
            assert run.recap[dead]["unreachable"] == 1
            assert all(counts["failed"] == 0 for counts in run.recap.values()), run.output
        assert set(pool_states(alive).values()) == {"up"}
        assert cluster.vip_holders() == [alive]
        for name in cluster.names("backends"):
            text = remote.run(name, "cat", "/etc/modhaven/modhaven.yml").stdout
            assert "mutable_seconds: 62" in text


def configuration(host: str) -> str:
    """Give a digest of what a host runs with."""
    return remote.run(
        host,
        "sh",
        "-c",
        "readlink /opt/modhaven/current /etc/nginx/modhaven; find /etc/modhaven /etc/systemd/system"
        " /etc/keepalived /etc/nginx/modhaven.releases -type f -not -name fault.conf"
        " | sort | xargs sha256sum",
    ).stdout


def test_an_update_that_fails_on_a_backend_leaves_the_cluster_as_it_was(say: Say) -> None:
    first, broken, last = cluster.names("backends")
    before = {name: configuration(name) for name in (first, broken, last)}
    with refuses_to_start(broken, SERVICE, "TimeoutStopSec=66"):
        # A changed unit has to be started anew.
        option = ("-e", "backend_stop_timeout_seconds=61")
        _, said = under_load("playbooks/update.yml", say, *option, succeeds=False)
    words = " ".join(said.split())
    assert f"Start the app anew on one backend first failed on {broken}: " in words, said
    assert f"Put back, and as before: {first}, {broken}. The cluster is as it was." in words, said
    # In its own turn: nobody else is drained while it is out.
    drains = [f"{broken} is drained on", f"{broken} is asked by", f"{first} is drained on"]
    assert words.index(drains[0]) < words.index(drains[1]) < words.rindex(drains[2])
    assert {name: configuration(name) for name in before} == before
    for edge in cluster.names("edges"):
        assert set(pool_states(edge).values()) == {"up"}


def test_an_update_that_fails_on_an_edge_leaves_the_cluster_as_it_was(say: Say) -> None:
    first, broken = cluster.names("edges")
    names = (first, broken, "backend2")
    before = {name: configuration(name) for name in names}
    with refuses_to_start(broken, POOL_SERVICE, "8447"):
        option = ("-e", "edge_status_port=8447", "-e", "modhaven_mutable_seconds=63")
        _, said = under_load(
            "playbooks/update.yml", say, *option, "--limit", "backend2,edges", succeeds=False
        )
    words = " ".join(said.split())
    assert f"Start the pool manager, and at every boot failed on {broken}: " in words, said
    put_back = f"Put back, and as before: {first}, {broken}, backend2. The cluster is as it was."
    assert put_back in words, said
    assert {name: configuration(name) for name in names} == before
    for edge in cluster.names("edges"):
        assert remote.run(edge, "test", "-e", "/etc/modhaven/vip-stay-out", check=False).returncode
        assert set(pool_states(edge).values()) == {"up"}
    assert len(cluster.vip_holders()) == 1


def test_a_backend_that_dies_in_its_turn_leaves_the_others_as_they_were(say: Say) -> None:
    first, dying, last = cluster.names("backends")
    unit = remote.run(dying, "cat", SERVICE).stdout
    before = {name: configuration(name) for name in (first, last)}
    # What Ansible does there fails before the host is gone: it counts such a host twice.
    die = "pkill -9 -x python3; sleep 0.2; systemctl --force --force poweroff"
    with lost_at_start(dying, SERVICE, "TimeoutStopSec=66", die):
        option = ("-e", "backend_stop_timeout_seconds=61")
        _, said = under_load("playbooks/update.yml", say, *option, succeeds=False)
        words = " ".join(said.split())
        assert f"{dying} stopped answering while it was changed. Put back" in words, said
        assert f"Put back, and as before: {first}. Not as before: {dying}; a backend" in words, said
        assert {name: configuration(name) for name in before} == before
        for edge in cluster.names("edges"):
            assert {pool_states(edge)[name] for name in (first, last)} == {"up"}
            # Back, it has half of the change: nobody asks it before somebody has looked.
            assert pool_states(edge)[dying] == "drained"
    again = play("playbooks/update.yml", LAB)
    assert again.ok, again.output
    assert remote.run(dying, "cat", SERVICE).stdout == unit
    for edge in cluster.names("edges"):
        assert set(pool_states(edge).values()) == {"up"}


def test_an_edge_that_is_cut_off_in_its_turn_leaves_the_others_as_they_were(say: Say) -> None:
    cut, other = cluster.names("edges")
    names = (other, *cluster.names("backends"))
    before = {name: configuration(name) for name in names}
    with lost_at_start(cut, POOL_SERVICE, "8447", "ip link set dev eth0 down"):
        option = ("-e", "edge_status_port=8447", "-e", "modhaven_mutable_seconds=63")
        _, said = under_load("playbooks/update.yml", say, *option, succeeds=False)
        words = " ".join(said.split())
        assert f"{cut} stopped answering while it was changed. Put back" in words, said
        assert f"Not as before: {cut}; a backend among them" in words, said
        assert {name: configuration(name) for name in names} == before
        # (!) Nobody but this one can take it: it was not to give it away to be put back.
        assert cluster.vip_holders() == [other]
    # It is still kept away from the VIP: no reason to take it from the other one.
    again = play("playbooks/update.yml", LAB)
    assert again.ok, again.output
    assert {name: configuration(name) for name in names} == before
    assert remote.run(cut, "test", "-e", "/etc/modhaven/vip-stay-out", check=False).returncode


def test_a_backend_that_cannot_be_put_back_stays_drained_and_is_named(say: Say) -> None:
    # Neither with the one nor with the other.
    with refuses_to_start("backend2", SERVICE, "TimeoutStopSec"):
        option = ("-e", "backend_stop_timeout_seconds=61", "--limit", "backend2")
        _, said = under_load("playbooks/update.yml", say, *option, succeeds=False)
        words = " ".join(said.split())
        assert "Not as before: backend2 (Start the app failed); a backend among" in words, said
        for edge in cluster.names("edges"):
            assert pool_states(edge)["backend2"] == "drained"
    run = play("playbooks/update.yml", LAB, "--limit", "backend2")
    assert run.ok, run.output
    for edge in cluster.names("edges"):
        assert pool_states(edge)["backend2"] == "up"


def test_a_release_that_does_not_start_stops_site_yml_at_the_first_backend() -> None:
    first, *others = cluster.names("backends")
    serving = {name: remote.unit_property(name, "modhaven.service", "MainPID") for name in others}
    with refuses_to_start(first, SERVICE, "TimeoutStopSec=68"):
        option = ("-e", "backend_stop_timeout_seconds=63")
        run = play("site.yml", LAB, *option, "--limit", "backends")
        assert not run.ok
        words = " ".join(run.output.split())
        assert f"The app did not start on {first}, so it was not started anew here." in words, words
        assert {
            name: remote.unit_property(name, "modhaven.service", "MainPID") for name in others
        } == serving
        for edge in cluster.names("edges"):
            assert get(lab().hosts[edge].address, "/readyz").status == 200


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
