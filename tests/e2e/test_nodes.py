"""A node is one host line: it joins, it leaves, and nobody else is restarted."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster, origin
from tests.e2e.playbook import copy_inventory, play, vagrant
from tests.lab import remote
from tests.lab.inventory import lab
from tests.lab.load_client import load_from

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Say

NEW = "backend4"
ADDRESS = "10.0.3.24"
MOST_SECONDS = 300
pytestmark = pytest.mark.timeout(900)
SERVICES = ("nginx.service", "modhaven.service", "keepalived.service")


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The lab's inventory with one more host line, and the machine for it."""
    inventory = copy_inventory(tmp_path_factory.mktemp("larger") / "lab")
    file = inventory / "hosts.yml"
    last = next(line for line in file.read_text().splitlines() if "backend3:" in line)
    indent = last[: len(last) - len(last.lstrip())]
    file.write_text(
        file.read_text().replace(last, f"{last}\n{indent}{NEW}: {{ansible_host: {ADDRESS}}}")
    )
    try:
        vagrant(inventory, "up", NEW, "--provider=lxc", "--no-provision")
        prepared = play("tests/lab/lab.yml", inventory, "--limit", f"{NEW},mirrors")
        assert prepared.ok, prepared.output
        yield inventory
    finally:
        vagrant(inventory, "destroy", "--force", NEW)


def identities() -> dict[str, str]:
    """Which process each service of the lab's own nodes is, and since when."""
    return {
        host: remote.run(
            *(host, "systemctl", "show", *SERVICES),
            *("--property=Id,MainPID,ActiveEnterTimestampMonotonic,NRestarts",),
        ).stdout
        for host in cluster.nodes()
    }


def reloads() -> dict[str, int]:
    """How often each edge's nginx was given another pool since its manager runs."""
    return {edge: int(cluster.pool_status(edge)["reloads"]) for edge in cluster.names("edges")}


def configurations() -> dict[str, str]:
    """Which release of its configuration the nginx of each edge has."""
    return {
        edge: remote.run(edge, "readlink", "/etc/nginx/modhaven").stdout
        for edge in cluster.names("edges")
    }


def load_during(action: str, inventory: Path | str, say: Say) -> None:
    """Run site.yml while a client loads files and what no cache keeps: nothing may fail."""
    plan = cluster.load_plan(origin.files()[:100], rate=20) | {"seconds": MOST_SECONDS}
    ready = hashlib.sha256(b"ready\n").hexdigest()
    plan["targets"] += [{"url": f"https://{cluster.vip()}/readyz", "sha256": ready}] * 100
    with load_from(cluster.client(), plan) as load:
        run = play("site.yml", inventory)
        result = load.enough()
    say(f"{action} a backend: {cluster.figures(result)}")
    assert run.ok, run.output
    assert result["sent"] > 200
    assert result["failed"] == 0, result["failures"]


def requests_logged_by_the_new_node() -> int:
    done = remote.run(NEW, "wc", "-l", "/var/log/nginx/modhaven-backend.log")
    return int(done.stdout.split()[0])


def test_a_backend_joins_by_one_line_and_leaves_without_anybody_restarting(
    larger: Path, say: Say
) -> None:
    before, reloaded, configured = identities(), reloads(), configurations()
    try:
        load_during("adding", larger, say)
        for edge in lab().group("edges"):
            assert NEW in cluster.backends_answering(edge.address, 60)
        assert identities() == before
        # The pool is all that changed for an edge: one reload, and no other configuration.
        assert reloads() == {edge: count + 1 for edge, count in reloaded.items()}
        assert configurations() == configured
    finally:
        load_during("removing", "inventories/lab", say)

    logged = requests_logged_by_the_new_node()
    others = {host.name for host in cluster.primaries()}
    for edge in lab().group("edges"):
        assert set(cluster.backends_answering(edge.address, 60)) == others
    assert requests_logged_by_the_new_node() == logged
    assert identities() == before
