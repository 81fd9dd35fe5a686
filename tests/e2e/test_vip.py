"""What is promised when an edge dies: the VIP moves, and downloads go on."""

from __future__ import annotations

import concurrent.futures
import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster, golang, origin
from tests.lab import faults, remote
from tests.lab.inventory import lab
from tests.lab.load_client import load_from
from tests.lab.web import get

if TYPE_CHECKING:
    import subprocess
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


def test_a_keepalived_that_is_killed_comes_back_and_one_edge_has_the_vip() -> None:
    master = cluster.vip_master()
    unit = "keepalived.service"
    before = remote.unit_property(master, unit, "NRestarts")
    with faults.killed(master, unit):
        remote.wait_until(
            "it to be started anew",
            lambda: remote.unit_property(master, unit, "NRestarts") != before,
            timeout=MOVED_WITHIN_SECONDS,
        )
        cluster.vip_master()
        assert get(cluster.vip(), "/healthz", timeout=5).status == 200


def test_an_nginx_that_is_killed_again_and_again_comes_back_each_time() -> None:
    edge = lab().group("edges")[0]
    # systemd's own limit would be five starts in ten seconds.
    for _ in range(8):
        remote.run(edge.name, "systemctl", "kill", "--signal=SIGKILL", "nginx.service")
        remote.wait_until(
            "nginx to answer again", lambda: answers(edge.address), MOVED_WITHIN_SECONDS, every=0.05
        )


def answers(address: str) -> bool:
    try:
        return get(address, "/healthz", timeout=1).status == 200
    except OSError:
        return False


def test_keepalived_brings_the_rules_of_a_vip_on_its_way() -> None:
    (edge, *_) = set(cluster.names("edges")) - {cluster.vip_master()}
    tables = (("inet", "modhaven_vip_moves"), ("ip", "modhaven_vip_clients"))
    for table in tables:
        remote.run(edge, "nft", "delete", "table", *table)
    remote.run(edge, "systemctl", "restart", "keepalived.service")
    for table in tables:
        remote.run(edge, "nft", "list", "table", *table)


# A client that waits: it asks once, keeps its connection and has nothing more to send.
WAITING = """
import socket, ssl, sys
vip, seconds = sys.argv[1], float(sys.argv[2])
context = ssl._create_unverified_context()
with context.wrap_socket(socket.create_connection((vip, 443), timeout=seconds)) as client:
    client.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: vip\\r\\n\\r\\n")
    answer = b""
    while not answer.endswith(b"ok\\n"):
        answer += client.recv(4096)
    print(client.getsockname()[1], flush=True)
    try:
        print("ended" if client.recv(1) == b"" else "answered")
    except ConnectionResetError:
        print("ended")
    except TimeoutError:
        print("heard nothing")
"""
CLIENTS = ("ip", "modhaven_vip_clients", "clients")


def waiting(seconds: int) -> subprocess.Popen[str]:
    """Start one on the client: it prints its port, and how its wait of so many seconds ended."""
    return remote.start(cluster.client(), "python3", "-c", WAITING, cluster.vip(), str(seconds))


def test_a_client_that_waits_learns_that_its_edge_is_gone(say: Say) -> None:
    master = cluster.vip_master()
    with waiting(20) as client:
        assert client.stdout is not None
        assert client.stdout.readline().strip().isdigit()
        with faults.link_down(master):
            began = time.monotonic()
            said = client.stdout.readline().strip()
            seconds = time.monotonic() - began
            assert set(cluster.vip_holders()) - {master}
    say(f"a client that waits: {said} {seconds:.1f} s after its edge's network was cut")
    # By TCP's keepalive a go command would learn of it after 15 s or more.
    assert said == "ended"
    assert seconds < MOVED_WITHIN_SECONDS
    cluster.vip_master()


def test_edges_know_who_is_connected_and_do_no_harm_to_those_of_a_living_one() -> None:
    master = cluster.vip_master()
    (other, *_) = set(cluster.names("edges")) - {master}

    def known() -> str:
        return remote.run(other, "nft", "list", "set", *CLIENTS).stdout

    with waiting(8) as client:
        assert client.stdout is not None
        entry = (
            f"{lab().hosts[cluster.client()].address} . {client.stdout.readline().strip()} . 443"
        )
        remote.wait_until("the other edge to know of it", lambda: entry in known(), 5)
        # As if this edge had just taken the VIP, and the connection were another one's.
        remote.run(master, "nft", "add", "element", *CLIENTS, f"{{ {entry} }}")
        remote.run(master, "/etc/modhaven/wake-clients")
        assert client.stdout.readline().strip() == "heard nothing"
    remote.wait_until("the other edge to forget it", lambda: entry not in known(), 5)


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
