"""A node leaves a live cluster for good, alive or dead, and nobody notices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster, golang
from tests.e2e.live import LAB, pool_states, under_load
from tests.e2e.playbook import copy_inventory, play
from tests.lab import faults, remote
from tests.lab.inventory import lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Say

PLAYBOOK = "playbooks/remove_node.yml"
BACKEND = "backend2"
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", autouse=True)
def _whole_at_last() -> Iterator[None]:
    cluster.wait_until_whole()
    yield
    make_whole()


@pytest.fixture
def _whole_again() -> Iterator[None]:
    yield
    make_whole()


def make_whole() -> None:
    faults.restore_all()
    assert play("site.yml", LAB).ok
    cluster.wait_until_whole()


def without(inventory: Path, *names: str) -> Path:
    """The inventory with the host lines of these names deleted, as the operator then does."""
    file = inventory / "hosts.yml"
    lines = file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.strip().partition(":")[0] not in names]
    assert len(lines) - len(kept) == len(names)
    file.write_text("".join(kept))
    return inventory


def is_active(host: str, unit: str) -> bool:
    return remote.run(host, "systemctl", "is-active", "--quiet", unit, check=False).returncode == 0


def vip_states(edge: str, since: str) -> list[str]:
    """Give the states that an edge's keepalived has entered since then."""
    log = remote.run(edge, "journalctl", "-u", "keepalived", "-o", "cat", "--since", since).stdout
    return re.findall(r"Entering (\w+) STATE", log)


@pytest.mark.usefixtures("_whole_again")
def test_a_backend_and_the_edge_with_the_vip_leave_and_no_request_fails(
    say: Say, tmp_path: Path
) -> None:
    (edge,) = cluster.vip_holders()
    (other,) = (name for name in cluster.names("edges") if name != edge)

    _, said = under_load(PLAYBOOK, say, "-e", f"node={BACKEND}")
    assert "Now delete its line" in said
    for name in (edge, other):
        assert BACKEND not in pool_states(name)
        assert not remote.run(name, "ls", "/var/lib/modhaven-pool/drained").stdout
    for unit in ("modhaven.service", "modhaven.socket", "nginx.service"):
        assert not is_active(BACKEND, unit)
    assert remote.run(BACKEND, "test", "-d", "/var/lib/modhaven/store/cache").returncode == 0
    siblings = remote.run("backend1", "grep", "^peers", "/etc/modhaven/modhaven.yml").stdout
    assert BACKEND not in siblings

    began = remote.run(other, "date", "+@%s.%N").stdout.strip()
    under_load(PLAYBOOK, say, "-e", f"node={edge}")
    assert cluster.vip_holders() == [other]
    for unit in ("keepalived.service", "modhaven-pool.service", "nginx.service"):
        assert not is_active(edge, unit)
    gone = lab().hosts[edge].address
    assert gone not in remote.run(other, "cat", "/etc/keepalived/keepalived.conf").stdout
    # It was told that it is alone, and kept the VIP.
    assert vip_states(other, began) == ["MASTER"]
    assert gone not in golang.shell(cluster.client(), "go env GOPROXY").output

    after = play("site.yml", without(copy_inventory(tmp_path / "lab"), BACKEND, edge))
    assert after.ok, after.output
    # Nothing of the pool, of VRRP, of the backends or the clients is left to change.
    assert set(after.changed()) <= {other}, after.output


def test_what_fails_half_way_says_so_and_the_next_run_goes_on() -> None:
    alive, dead = cluster.names("edges")
    # Nothing takes the place of a file that something is mounted on.
    pool = "/etc/modhaven/pool.yml"
    remote.run(alive, "mount", "--bind", pool, pool)
    try:
        run = play(PLAYBOOK, LAB, "-e", f"node={BACKEND}")
    finally:
        remote.run(alive, "umount", pool)
    assert not run.ok
    assert f"failed on {alive}. {BACKEND} is drained where it is still listed" in " ".join(
        run.output.split()
    )
    assert is_active(BACKEND, "modhaven.service")

    with faults.host_stopped(dead):
        run = play(PLAYBOOK, LAB, "-e", f"node={BACKEND}")
    assert not run.ok
    assert BACKEND not in pool_states(alive)
    assert not is_active(BACKEND, "nginx.service")
    assert f"{dead} did not answer and may still list {BACKEND}" in run.output
    # It is told by the same command, once it answers.
    again = play(PLAYBOOK, LAB, "-e", f"node={BACKEND}")
    assert again.ok, again.output
    assert BACKEND not in pool_states(dead)


def test_a_backend_that_is_dead_for_ever_is_removed() -> None:
    # The backend of the test before is not there any more.
    dead = "backend3"
    with faults.host_stopped(dead):
        run = play(PLAYBOOK, LAB, "-e", f"node={dead}")
        assert run.ok, run.output
        assert f"{dead} did not answer, so its services were not stopped" in run.output
        for edge in cluster.names("edges"):
            assert dead not in pool_states(edge)


def test_what_the_cluster_cannot_do_without_is_refused_before_any_host_is_asked(
    tmp_path: Path,
) -> None:
    small = without(copy_inventory(tmp_path / "lab"), "backend2", "backend3")
    run = play(PLAYBOOK, small, "-e", "node=backend1")
    assert not run.ok
    assert "backend1 is the only backend" in run.output
    assert "TASK [Remember that it answers]" not in run.output
