"""The pool heals itself: who hangs is taken out, who is drained is spared, people can see it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e import cluster, origin
from tests.lab import faults, remote
from tests.lab.inventory import lab
from tests.lab.load_client import load_from
from tests.lab.web import ANY_CERTIFICATE, get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Say
    from tests.lab.inventory import Host

MODHAVEN = "/opt/modhaven/current/bin/modhaven"
POOL_MANAGER = "modhaven-pool.service"
POOL_CONFIG = "/etc/modhaven/pool.yml"
# What the drill promises of a backend that accepts connections and never answers.
HUNG_SECONDS = 3.0
LOAD_SECONDS = 20


def pool(edge: str, *words: str, ok: bool = True) -> str:
    done = remote.run(edge, MODHAVEN, "pool", *words, check=False, timeout=120)
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def told(edge: str) -> dict[str, Any]:
    """What the pool manager of an edge tells, and each backend by its name."""
    status = cluster.pool_status(edge)
    return status | {server["name"]: server for server in status["servers"]}


def wait_for(edge: str, name: str, condition: Callable[[dict[str, Any]], bool]) -> float:
    """Wait until nginx has a pool in which the backend is so; return the seconds it took."""
    began = time.monotonic()
    remote.wait_until(
        f"{name} in the pool of {edge}",
        lambda: (now := told(edge))["published"] and condition(now[name]),
        30,
        every=0.05,
    )
    return time.monotonic() - began


@pytest.fixture(autouse=True)
def _whole() -> Iterator[None]:
    cluster.wait_until_whole()
    yield
    for edge in cluster.names("edges"):
        for name in cluster.names("backends"):
            remote.run(edge, "rm", "-f", f"/var/lib/modhaven-pool/drained/{name}")
    cluster.wait_until_whole()


def restarts(edge: str) -> int:
    """How often systemd itself has started the pool manager anew."""
    return int(remote.unit_property(edge, POOL_MANAGER, "NRestarts"))


def small_files() -> list[origin.File]:
    return [file for file in origin.files() if not file.path.endswith(".zip")]


def test_a_backend_that_hangs_is_taken_out_and_no_request_fails(say: Say) -> None:
    edges = cluster.names("edges")
    plan = cluster.load_plan(small_files(), rate=20) | {"seconds": LOAD_SECONDS}
    cluster.forget_edge_caches()
    with load_from(cluster.client(), plan) as load:
        with faults.hung("backend1", "nginx.service", "modhaven.service"):
            with ThreadPoolExecutor(len(edges)) as waiting:
                out = list(
                    waiting.map(
                        lambda edge: wait_for(edge, "backend1", lambda it: not it["asked"]), edges
                    )
                )
            result = load.result()
        back = wait_for(edges[0], "backend1", lambda it: it["asked"])
    say(
        f"backend1 hangs: out of the pools after {max(out):.2f} s, back {back:.2f} s after it goes"
        f" on; {cluster.figures(result)}"
    )
    assert result["failed"] == 0, result["failures"]
    assert max(out) <= HUNG_SECONDS


def test_a_backend_can_be_drained_under_load_and_let_in_again(say: Say) -> None:
    edges = cluster.names("edges")
    plan = cluster.load_plan(small_files(), rate=20) | {"seconds": LOAD_SECONDS}
    cluster.forget_edge_caches()
    with load_from(cluster.client(), plan) as load:
        for edge in edges:
            said = pool(edge, "drain", "backend1", "--reason", "a new disk")
            assert "backend1 has answered all it was asked" in said
        for host in lab().group("edges"):
            assert set(cluster.backends_answering(host.address, 30)) == {"backend2"}
        table = pool(edges[0], "status")
        # Whoever restarts the pool manager does not undo what somebody decided.
        remote.run(edges[0], "systemctl", "restart", POOL_MANAGER)
        assert told(edges[0])["backend1"]["state"] == "drained"
        for edge in edges:
            assert "backend1 is asked again" in pool(edge, "undrain", "backend1")
        result = load.result()
    say(f"draining a backend: {cluster.figures(result)}")
    assert result["failed"] == 0, result["failures"]
    (row,) = (line for line in table.splitlines() if line.startswith("backend1 "))
    assert "drained" in row
    assert "a new disk" in row


def wait_until_promoted(edge: str, *, promoted: bool = True) -> float:
    """Wait until nginx has a pool whose backups serve too, or only in need; return the seconds."""
    began = time.monotonic()
    remote.wait_until(
        f"backups of {edge} {'' if promoted else 'no longer '}promoted",
        lambda: (now := told(edge))["published"] and now["promoted"] is promoted,
        30,
        every=0.05,
    )
    return time.monotonic() - began


@pytest.fixture
def easily_surprised() -> Iterator[Host]:
    """An edge for which thirty connections more than usual are a surge, until a second later."""
    edge = lab().group("edges")[0]
    before = remote.run(edge.name, "cat", POOL_CONFIG).stdout
    for key, value in {"minimum_connections": 30, "quiet_seconds": 1}.items():
        remote.run(edge.name, "sed", "-i", f"s/ {key}: .*/ {key}: {value}/", POOL_CONFIG)
    try:
        yield edge
    finally:
        remote.put(edge.name, POOL_CONFIG, before)


def test_when_many_ask_at_once_a_backup_serves_too_until_they_are_gone(
    easily_surprised: Host, say: Say
) -> None:
    edge, backup = easily_surprised, cluster.backups()[0].name
    assert set(cluster.backends_answering(edge.address, 12)) == {"backend1", "backend2"}
    with contextlib.ExitStack() as open_connections:
        for _ in range(100):
            plain = open_connections.enter_context(socket.create_connection((edge.address, 443)))
            client = open_connections.enter_context(ANY_CERTIFICATE.wrap_socket(plain))
            # One that waits for nothing yet is no demand.
            client.sendall(b"GET /readyz HTTP/1.1\r\n")
        promoted = wait_until_promoted(edge.name)
        # The others are asked as before; it is one more.
        assert backup in cluster.backends_answering(edge.address, 40)
    rests = wait_until_promoted(edge.name, promoted=False)
    assert set(cluster.backends_answering(edge.address, 12)) == {"backend1", "backend2"}
    say(f"{backup} served {promoted:.1f} s after a surge began, and rested {rests:.1f} s after it")


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSTOP"])
def test_nobody_notices_when_the_pool_manager_dies_or_hangs_and_it_comes_back(signal: str) -> None:
    edge = lab().group("edges")[0]
    before, restarted = told(edge.name), restarts(edge.name)
    stopped = threading.Event()

    def ask() -> set[int]:
        found = set()
        while not stopped.is_set():
            found.add(get(edge.address, "/readyz").status)
        return found

    with ThreadPoolExecutor(1) as asking:
        answers = asking.submit(ask)
        try:
            remote.run(edge.name, "systemctl", "kill", f"--signal={signal}", POOL_MANAGER)
            # One that hangs is ended by systemd's watchdog, after thirty seconds.
            remote.wait_until("a new pool manager", lambda: restarts(edge.name) > restarted, 60)
            remote.wait_until(
                "its status", lambda: told(edge.name)["time"] > before["time"] + 2, 10
            )
        finally:
            stopped.set()
    assert answers.result() == {200}
    after = told(edge.name)
    # nginx had the right pool all the time.
    assert (after["reloads"], after["published"]) == (0, True)


def test_an_error_of_people_is_one_sentence() -> None:
    edge = cluster.names("edges")[0]
    unknown = pool(edge, "drain", "backend9", ok=False)
    assert unknown.startswith("modhaven: backend9 is no backend of this pool; these are backend1")
    with faults.service_stopped(edge, POOL_MANAGER):
        # What was told last is old by then.
        remote.wait_until(
            "the status to be old", lambda: time.time() - told(edge)["time"] > 6, 20, every=0.5
        )
        dead = pool(edge, "status", ok=False)
    assert dead.startswith("modhaven: the pool manager does not run on this host")


def test_monitors_alone_see_the_pools_metrics() -> None:
    edge = lab().group("edges")[0]
    seen = remote.run(edge.name, "curl", "-sk", "https://127.0.0.1/metrics").stdout
    assert 'modhaven_pool_backend_asked{backend="backend1",state="up"} 1.0' in seen
    assert get(edge.address, "/metrics").status == 403
