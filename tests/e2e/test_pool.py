"""The pool heals itself: who hangs is taken out, who is drained is spared, people can see it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e import cluster, origin
from tests.lab import faults, remote
from tests.lab.inventory import lab
from tests.lab.load_client import load_from
from tests.lab.web import get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Say

MODHAVEN = "/opt/modhaven/current/bin/modhaven"
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
        remote.run(edges[0], "systemctl", "restart", "modhaven-pool.service")
        assert told(edges[0])["backend1"]["state"] == "drained"
        for edge in edges:
            assert "backend1 is asked again" in pool(edge, "undrain", "backend1")
        result = load.result()
    say(f"draining a backend: {cluster.figures(result)}")
    assert result["failed"] == 0, result["failures"]
    (row,) = (line for line in table.splitlines() if line.startswith("backend1 "))
    assert "drained" in row
    assert "a new disk" in row


def test_nobody_notices_when_the_pool_manager_dies_and_it_comes_back() -> None:
    edge = lab().group("edges")[0]
    before = told(edge.name)
    stopped = threading.Event()

    def ask() -> set[int]:
        found = set()
        while not stopped.is_set():
            found.add(get(edge.address, "/readyz").status)
        return found

    with ThreadPoolExecutor(1) as asking:
        answers = asking.submit(ask)
        try:
            remote.run(edge.name, "systemctl", "kill", "--signal=SIGKILL", "modhaven-pool.service")
            remote.wait_until(
                "a new pool manager", lambda: told(edge.name)["time"] > before["time"] + 2, 30
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
    with faults.service_stopped(edge, "modhaven-pool.service"):
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
