"""``modhaven pool`` with a real nginx, when one of the two is restarted under the other."""

from __future__ import annotations

import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from modhaven.pool import status

if TYPE_CHECKING:
    from tests.integration.pool_edge import Edge

pytestmark = pytest.mark.integration


def test_an_nginx_that_is_restarted_in_a_reload_never_asks_who_is_down(edge: Edge) -> None:
    edge.start("b1", "b2", "b3")
    url = f"http://127.0.0.1:{edge.port}/slow/3"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lambda: urllib.request.urlopen(url, timeout=20).read())
        told = edge.wait("work", lambda told: any(one.in_flight for one in told.servers))
        victim = next(one.name for one in told.servers if not one.in_flight)
        # It ends when the slow request has its answer; meanwhile a backend dies.
        ending = edge.quit_nginx()
        edge.backends[victim].stop()
        edge.wait(f"{victim} down", lambda told: told.server(victim).state == "down")  # type: ignore[union-attr] # it is there
        slow.result()
        ending.wait(10)
    edge.start_nginx()
    began = time.monotonic()
    edge.wait("its reload", lambda told: told.published and not told.error)
    assert time.monotonic() - began < 3
    assert victim not in edge.answers()
    # Nothing was put back at any time: that would have asked the dead one.
    log = edge.daemon_log.read_text()
    assert "keeps the pool it has" not in log
    assert "somebody else" not in log


def test_systemd_hears_that_the_manager_is_ready_when_its_status_can_be_asked(edge: Edge) -> None:
    edge.start("b1", "b2")
    edge.stop_daemon()
    # A release brings another template: the first thing it does is a reload.
    with edge.paths.template.open("a") as template:
        template.write("# new\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(20)
        systemd.bind(str(edge.root / "notify"))
        daemon = edge.begin_daemon(NOTIFY_SOCKET=str(edge.root / "notify"))
        assert systemd.recv(100) == b"READY=1"
        told = status.read(edge.paths.status)
        assert told is not None
        assert (told.pid, told.is_old) == (daemon.pid, False)
        assert systemd.recv(100) == b"WATCHDOG=1"


def test_a_command_waits_for_a_manager_that_starts(edge: Edge) -> None:
    edge.start("b1", "b2")
    edge.stop_daemon()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(edge.pool, "status")
        time.sleep(1)
        edge.start_daemon()
        assert asked.result().returncode == 0


def test_a_restart_while_all_are_down_costs_no_reload_and_forgets_nothing(edge: Edge) -> None:
    edge.start("b1", "b2", "b3")
    for backend in edge.backends.values():
        backend.stop()
    edge.wait("kept", lambda told: told.kept and told.published)
    before = edge.wait("all down", lambda told: all(one.state == "kept" for one in told.servers))
    edge.wait("its reload", lambda told: told.published)
    listed, workers = edge.listed(), edge.workers()
    edge.stop_daemon()
    edge.start_daemon()
    began = time.time()
    told = edge.wait("two seconds of rounds", lambda told: told.time > began + 2)
    assert (told.reloads, edge.listed(), edge.workers()) == (0, listed, workers)
    assert [(one.state, one.since) for one in told.servers] == [
        (one.state, one.since) for one in before.servers
    ]
