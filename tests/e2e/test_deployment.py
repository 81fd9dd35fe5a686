"""What an operator may do with site.yml at any time."""

from __future__ import annotations

import json
import ssl
import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster, golang
from tests.e2e.playbook import play
from tests.lab import faults, remote
from tests.lab.inventory import ROOT, lab
from tests.lab.web import get

if TYPE_CHECKING:
    from tests.e2e.conftest import Say

LAB = "inventories/lab"
# Each test runs the whole playbook several times.
pytestmark = pytest.mark.timeout(900)


def test_a_second_run_changes_nothing_on_any_host(say: Say) -> None:
    began = time.monotonic()
    run = play("site.yml", LAB)
    seconds = time.monotonic() - began
    say(f"a second run of site.yml took {seconds:.0f} s for {len(run.recap) - 1} hosts")
    assert run.ok, run.output
    assert run.changed() == {}, run.output
    hosts = {*cluster.nodes(), *cluster.names("clients")}
    assert hosts <= run.recap.keys()
    # Preflight has seen it: the role that installs it looks no more.
    assert "See whether this release is installed" not in run.output


def test_check_mode_with_diff_shows_what_would_change_and_nothing_else() -> None:
    """Also before the app is upgraded: what would be installed is not there yet."""
    release = "/opt/modhaven/releases/next"
    changes = ("-e", "edge_pool_keepalive=17", "-e", f"_app_release_dir={release}")
    run = play("site.yml", LAB, "--check", "--diff", *changes)
    assert run.ok, run.output
    assert "+  keepalive: 17" in run.output
    # The four steps of a new release; on an edge what it gives the pool manager besides.
    backends, edges = cluster.names("backends"), cluster.names("edges")
    assert run.changed() == dict.fromkeys(backends, 4) | dict.fromkeys(edges, 5)
    for edge in cluster.names("edges"):
        assert "keepalive 17;" not in remote.run(edge, "nginx", "-T").stdout
    for host in run.changed():
        assert remote.run(host, "test", "-e", release, check=False).returncode != 0


def app_process(backend: str) -> str:
    return remote.run(backend, "systemctl", "show", "--property=MainPID", "modhaven").stdout


def workers(backend: str) -> set[str]:
    return set(
        remote.run(backend, "pgrep", "--parent", app_process(backend)[8:].strip()).stdout.split()
    )


def test_the_app_takes_a_new_configuration_without_being_restarted() -> None:
    backend = cluster.names("backends")[0]
    process, before = app_process(backend), workers(backend)
    option = ("-e", "backend_not_found_seconds=61")
    try:
        run = play("site.yml", LAB, "--tags", "backend", *option)
        assert run.ok, run.output
        assert set(run.changed()) == set(cluster.names("backends"))
        assert app_process(backend) == process
        remote.wait_until("new workers", lambda: not before & workers(backend), timeout=60)
        answer = get(cluster.vip(), "/example.com/modhaven-has-none-such/@v/v1.0.0.info")
        assert "max-age=61" in answer.headers["cache-control"]
    finally:
        assert play("site.yml", LAB, "--tags", "backend").ok


def test_a_run_that_was_cut_short_is_completed_by_the_next() -> None:
    backend = cluster.names("backends")[0]
    process = app_process(backend)
    # What is left when a run dies after it has installed something and before the app has taken it.
    remote.run(backend, "rm", "/etc/modhaven/applied")
    remote.run(backend, "rm", "-rf", "/etc/nginx/modhaven.loaded")
    run = play("site.yml", LAB, "--limit", "backends,localhost")
    assert run.ok, run.output
    assert set(run.changed()) == {backend}
    assert app_process(backend) != process


def test_a_dead_host_does_not_keep_the_others_from_being_deployed() -> None:
    dead = cluster.backups()[0].name
    with faults.host_stopped(dead):
        run = play("site.yml", LAB, "-e", "edge_pool_keepalive=63")
    assert not run.ok
    assert run.recap[dead]["unreachable"] == 1
    assert set(run.changed()) == set(cluster.names("edges"))
    assert all(counts["failed"] == 0 for counts in run.recap.values())
    assert play("site.yml", LAB, "--tags", "edge").ok


def test_a_configuration_that_nginx_refuses_is_never_live() -> None:
    edge = cluster.names("edges")[0]
    before = remote.run(edge, "nginx", "-T").stdout
    run = play("site.yml", LAB, "--limit", f"{edge},localhost", "-e", "edge_cache_min_free=plenty")
    assert not run.ok
    assert "nginx -t refused the new configuration" in run.output
    assert remote.run(edge, "nginx", "-T").stdout == before
    assert remote.run(edge, "nginx", "-t", "-q").returncode == 0


def test_an_own_certificate_is_served_and_one_with_the_key_of_another_replaces_nothing() -> None:
    edge, *_ = cluster.names("edges")
    hosts = ROOT / LAB / ".state/pki/hosts"
    address = (lab().hosts[edge].address, 443)
    here = ("--limit", f"{edge},localhost")

    def served() -> str:
        return ssl.get_server_certificate(address).strip()

    def own(name: str, key: str) -> tuple[str, str]:
        given = {
            "edge_tls_certificate": str(hosts / f"{name}.crt"),
            "edge_tls_key": str(hosts / f"{key}.key"),
            "edge_server_names": [edge],
        }
        return "-e", json.dumps(given)

    before = served()
    try:
        assert play("site.yml", LAB, *here, *own("backend1", "backend1")).ok
        assert served() == (hosts / "backend1.crt").read_text().strip() != before
        wrong = play("site.yml", LAB, *here, *own("backend2", "backend1"))
        assert "'edge_tls_key' is not the key of 'edge_tls_certificate'" in wrong.output
        assert remote.run(edge, "nginx", "-t", "-q").returncode == 0
        assert served() == (hosts / "backend1.crt").read_text().strip()
    finally:
        assert play("site.yml", LAB, *here).ok
    assert served() == before


def test_the_go_environment_of_a_client_is_undone_when_its_variable_is_emptied() -> None:
    client = cluster.client()
    folders = "/usr/local/share/ca-certificates /etc/systemd/system.conf.d /etc/profile.d"
    asked = f"go env GOPROXY GOSUMDB; ls {folders}"
    before = golang.shell(client, asked)
    assert cluster.vip() in before.output
    try:
        undone = play("site.yml", LAB, "--tags", "client", "-e", "client_goproxy=")
        assert undone.ok, undone.output
        after = golang.shell(client, asked)
        assert after.output.splitlines()[:2] == [
            "https://proxy.golang.org,direct",
            "sum.golang.org",
        ]
        assert "modhaven.crt" not in after.output
        assert "modhaven.sh" not in after.output
        assert "modhaven.conf" not in after.output
    finally:
        redone = play("site.yml", LAB, "--tags", "client")
    assert redone.ok, redone.output
    assert golang.shell(client, asked).output == before.output
