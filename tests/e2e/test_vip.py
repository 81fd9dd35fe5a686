"""What is promised when an edge dies: the VIP moves, and downloads go on."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster, golang, origin
from tests.lab import faults, remote
from tests.lab.inventory import lab
from tests.lab.load_client import load_from
from tests.lab.web import get

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.e2e.conftest import Say

RATE = 40
SECONDS = 15
MOVED_WITHIN_SECONDS = 10
# The VIP leaves first, between two answers.
PLANNED = {"keepalived stopped", "nginx stopped"}


def leavings(master: str) -> dict[str, AbstractContextManager[None]]:
    return {
        "its network cut": faults.link_down(master),
        "keepalived stopped": faults.service_stopped(master, "keepalived.service"),
        "nginx stopped": faults.service_stopped(master, "nginx.service"),
    }


@pytest.mark.parametrize("what", ["its network cut", "keepalived stopped", "nginx stopped"])
def test_the_vip_moves_and_downloads_go_on_when_the_master_has(what: str, say: Say) -> None:
    master = cluster.vip_master()
    others = set(cluster.names("edges")) - {master}
    small = [file for file in origin.files() if file.path.endswith(".mod")][:40]
    plan = cluster.load_plan(small, rate=RATE) | {"seconds": SECONDS, "timeout_seconds": 5}
    stop: concurrent.futures.Future[None] = concurrent.futures.Future()
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        load_from(cluster.client(), plan) as load,
    ):
        builds = pool.submit(
            golang.downloads, cluster.client(), "rsc.io/quote@v1.5.2", until=stop.done, timeout=60
        )
        try:
            remote.wait_until(
                "downloads through the VIP", lambda: has_access_log_of_client(master), timeout=20
            )
            with leavings(master)[what]:
                remote.wait_until(
                    "another edge to hold the VIP",
                    lambda: bool(others & set(cluster.vip_holders())),
                    timeout=MOVED_WITHIN_SECONDS,
                )
                result = load.result()
                assert get(cluster.vip(), small[0].path, timeout=5).status == 200
        finally:
            stop.set_result(None)
        runs = builds.result()

    say(f"VIP master with {what}: {cluster.figures(result)}; {len(runs)} go downloads beside it")
    assert result["wrong_bytes"] == 0
    if what in PLANNED:
        assert result["failed"] == 0, result["failures"]
    assert result["ok"] > 0.7 * result["sent"], result["failures"]
    failed = [run.output for run in runs if not run.ok]
    assert runs
    assert not failed, failed[0]
    cluster.vip_master()


def test_keepalived_brings_the_rule_that_nobody_is_refused() -> None:
    (edge, *_) = set(cluster.names("edges")) - {cluster.vip_master()}
    remote.run(edge, "nft", "delete", "table", "inet", "modhaven_vip_moves")
    remote.run(edge, "systemctl", "restart", "keepalived.service")
    remote.run(edge, "nft", "list", "table", "inet", "modhaven_vip_moves")


def has_access_log_of_client(edge: str) -> bool:
    address = lab().hosts[cluster.client()].address
    done = remote.run(
        edge,
        "sh",
        "-c",
        f"tail -n 50 /var/log/nginx/modhaven-edge.log | grep -c '\"{address}\"'",
        check=False,
    )
    return int(done.stdout.strip() or 0) > 20
