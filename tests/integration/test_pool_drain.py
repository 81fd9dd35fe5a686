"""Draining and letting in with a real nginx, of backends that hang, die or are let in meanwhile."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.integration.pool_edge import work_on_b1

if TYPE_CHECKING:
    from tests.integration.pool_edge import Edge

pytestmark = pytest.mark.integration


def test_a_drain_is_not_over_when_somebody_lets_its_backend_in(edge: Edge) -> None:
    with work_on_b1(edge, 9), ThreadPoolExecutor(1) as pool:
        draining = pool.submit(edge.pool, "drain", "b1", "--wait", "30")
        edge.wait_state("b1", "drained")
        assert edge.pool("undrain", "b1").returncode == 0
        done = draining.result()
        assert done.returncode == 1
        assert "b1 was let in again meanwhile" in done.stderr
        assert edge.server("b1").in_flight == 1


def test_one_that_says_nothing_for_a_moment_is_waited_for(edge: Edge) -> None:
    with work_on_b1(edge, 7) as slow, ThreadPoolExecutor(1) as pool:
        draining = pool.submit(edge.pool, "drain", "b1", "--wait", "30")
        edge.wait_state("b1", "drained")
        edge.backends["b1"].signal(signal.SIGSTOP)
        edge.wait("b1 not ready", lambda told: not told.servers[0].ready)
        time.sleep(1)
        assert not draining.done()
        edge.backends["b1"].signal(signal.SIGCONT)
        done = draining.result()
        assert (done.returncode, slow.done()) == (0, True), done.stderr
        assert "b1 has answered all it was asked" in done.stdout


def test_one_that_hangs_is_waited_for_some_seconds_and_a_dead_one_is_not(edge: Edge) -> None:
    edge.start("b1", "b2")
    edge.backends["b1"].signal(signal.SIGSTOP)
    edge.wait_state("b1", "down")
    begun = time.monotonic()
    done = edge.pool("drain", "b1", "--wait", "60")
    assert done.returncode == 0, done.stderr
    assert "b1 answers nobody (no answer within 0.8 s)" in done.stdout
    assert 5 < time.monotonic() - begun < 15
    edge.backends["b1"].stop()
    edge.wait("b1 dead", lambda told: told.servers[0].error == "connection refused")
    begun = time.monotonic()
    done = edge.pool("drain", "b1", "--wait", "60")
    assert (done.returncode, time.monotonic() - begun < 5) == (0, True)
    assert "b1 answers nobody (connection refused)" in done.stdout


def test_one_that_is_kept_is_not_in_again(edge: Edge) -> None:
    edge.start("b1", "b2", "b3", max_removed_share=0.3)
    assert edge.pool("drain", "b1").returncode == 0
    edge.backends["b1"].stop()
    edge.wait("b1 not ready", lambda told: not told.servers[0].ready)
    done = edge.pool("undrain", "b1", "--wait", "3")
    assert (done.returncode, edge.server("b1").state) == (1, "kept")
    assert "it is kept (connection refused)" in done.stderr
    edge.backends["b1"].start()
    done = edge.pool("undrain", "b1", "--wait", "20")
    assert (done.returncode, edge.server("b1").state) == (0, "up")


def test_one_that_is_kept_can_be_drained_while_others_are_down(edge: Edge) -> None:
    """Playbooks drain nodes that are dead."""
    edge.start("b1", "b2", "b3", max_removed_share=0.3)
    for name in ("b1", "b2"):
        edge.backends[name].stop()
    edge.wait("kept", lambda told: told.kept and told.published)
    done = edge.pool("drain", "b1", "--wait", "60")
    assert done.returncode == 0, done.stderr
