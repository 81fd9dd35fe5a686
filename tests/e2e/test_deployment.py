"""What an operator may do with site.yml at any time."""

from __future__ import annotations

from tests.e2e import cluster, golang
from tests.e2e.playbook import play
from tests.lab import remote

LAB = "inventories/lab"


def test_a_second_run_changes_nothing_on_any_host() -> None:
    run = play("site.yml", LAB)
    assert run.ok, run.output
    assert run.changed() == {}, run.output
    hosts = {*cluster.names("edges"), *cluster.names("backends"), *cluster.names("clients")}
    assert hosts <= run.recap.keys()


def test_check_mode_with_diff_passes_on_deployed_hosts_and_foresees_no_change() -> None:
    run = play("site.yml", LAB, "--check", "--diff")
    assert run.ok, run.output
    assert run.changed() == {}, run.output


def test_check_mode_shows_what_a_changed_variable_would_change_and_changes_nothing() -> None:
    run = play("site.yml", LAB, "--check", "--diff", "-e", "edge_pool_keepalive=17")
    assert run.ok, run.output
    assert "+    keepalive 17;" in run.output
    assert set(run.changed()) == set(cluster.names("edges"))
    for edge in cluster.names("edges"):
        assert "keepalive 17;" not in remote.run(edge, "nginx", "-T").stdout


def test_a_configuration_that_nginx_refuses_is_never_live() -> None:
    edge = cluster.names("edges")[0]
    before = remote.run(edge, "nginx", "-T").stdout
    run = play("site.yml", LAB, "--limit", f"{edge},localhost", "-e", "edge_cache_min_free=plenty")
    assert not run.ok
    assert "nginx -t refused the new configuration" in run.output
    assert remote.run(edge, "nginx", "-T").stdout == before
    assert remote.run(edge, "nginx", "-t", "-q").returncode == 0


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
