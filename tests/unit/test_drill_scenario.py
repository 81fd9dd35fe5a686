"""Who is hit, what is undone, and when a scenario is no measurement."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.conftest import FakeUpstream, Reply
from tests.unit.test_drill_catalogue import a_plan

from modhaven.drill import __main__ as program
from modhaven.drill import breaking, catalogue, edges, environment, faults, scenario
from modhaven.drill.breaking import break_and_undo, choose_hits, names
from modhaven.drill.catalogue import Fault
from modhaven.drill.cluster import Cluster
from modhaven.drill.figures import Request
from modhaven.drill.hosts import Host, HostError
from modhaven.drill.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def host(name: str, *groups: str, backup: bool = False) -> dict[str, Any]:
    return {"name": name, "address": name, "groups": groups, "backup": backup, "ssh": ["ssh", name]}


def plan_of(*hosts: dict[str, Any], **own: Any) -> Plan:
    return Plan.from_json(a_plan(hosts=list(hosts), **own))


BOTH = ("edges", "backends")
TWO = catalogue.by_name("edge_and_backend")


# --- who is hit


def test_of_hosts_that_are_both_the_edge_and_the_backend_are_two() -> None:
    plan = plan_of(host("go1", *BOTH), host("go2", *BOTH))
    for holder, other in (("go1", "go2"), ("go2", "go1")):
        hits = choose_hits(TWO, plan, [holder])
        assert [(hit.fault.kind, [one.name for one in hit.hosts]) for hit in hits] == [
            ("link_down", [holder]), ("kill", [other]),
        ]  # fmt: skip
        assert names(hits, "vip_master") == {holder}
        assert names(hits, "primary", "primaries") == {other}


def test_a_backend_that_is_an_edge_too_is_no_lost_edge() -> None:
    plan = plan_of(host("go1", *BOTH), host("go2", *BOTH))
    hits = choose_hits(catalogue.by_name("backend_hung"), plan, ["go1"])
    assert (names(hits), names(hits, "vip_master")) == (frozenset({"go2"}), frozenset())


def test_two_faults_on_one_host_are_not_the_scenario() -> None:
    plan = plan_of(host("go1", *BOTH), host("go2", *BOTH, backup=True))
    with pytest.raises(HostError, match="needs a backend beside the edge that has the VIP"):
        choose_hits(TWO, plan, ["go1"])
    with pytest.raises(HostError, match="edge_killed found no vip_master to hit"):
        choose_hits(catalogue.by_name("edge_killed"), plan, [])


# --- what is undone


class FakeCluster:
    """What is asked of a cluster when faults are made on this machine."""

    def __init__(self) -> None:
        self.plan = plan_of(host("e1", "edges"), host("b1", "backends"))
        self.still_broken: list[str] = []
        self.clocks = self

    def here(self, _host: Host, moment: float) -> float:
        return moment


@pytest.fixture
def cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> FakeCluster:
    """On which the fault `mark` is what the test's parameter says."""
    monkeypatch.setattr(Host, "command", lambda _self, argv: list(argv))
    monkeypatch.setitem(faults.HOST_FAULTS, "mark", request.param)
    for name in ("systemd-run", "systemctl"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return FakeCluster()


def mark(cluster: FakeCluster, meanwhile: Any = lambda: None) -> tuple[float, float]:
    (b1,) = cluster.plan.group("backends")
    hit = breaking.Hit(fault=Fault(kind="mark", on="primary"), hosts=(b1,))
    return break_and_undo([hit], cast("Cluster", cluster), meanwhile)


@pytest.mark.parametrize("cluster", [faults.Scripts(make=":", undo="true")], indirect=True)
def test_a_fault_that_is_undone_leaves_nothing(cluster: FakeCluster) -> None:
    before = time.time()
    fault, undone = mark(cluster)
    assert before - 0.1 <= fault <= undone <= time.time()
    assert cluster.still_broken == []


@pytest.mark.parametrize("cluster", [faults.Scripts(make=":", undo="false")], indirect=True)
def test_a_fault_that_is_not_undone_is_told_and_hides_no_other_end(cluster: FakeCluster) -> None:
    with pytest.raises(HostError, match="mark on b1 failed"):
        mark(cluster)
    told = "mark on b1 (b1 undoes it 120 s after it was prepared)"
    assert cluster.still_broken == [told]

    def stop() -> None:
        raise program.Stopped

    with pytest.raises(program.Stopped):
        mark(cluster, stop)
    assert cluster.still_broken == [told, told]


@pytest.mark.parametrize("cluster", [faults.Scripts(make="false", undo="true")], indirect=True)
def test_a_fault_that_cannot_be_made_is_undone(cluster: FakeCluster) -> None:
    with pytest.raises(HostError, match="ended before it said 'made'"):
        mark(cluster)
    assert cluster.still_broken == []


# --- a whole scenario, this machine being edge, backend and client


@pytest.fixture
def here(fake: FakeUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Without systemd: a fault of the test's own has no undo."""
    fake.default = Reply(body=b"ready\n", headers={"X-Modhaven-Backend": "b1"})
    status = tmp_path / "status.json"
    status.write_text(
        '{"published": true, "servers": [{"name": "b1", "state": "up", "asked": true}]}'
    )
    monkeypatch.setattr(Host, "command", lambda _self, argv, **_: list(argv))
    monkeypatch.setattr(edges, "STATUS", str(status))
    monkeypatch.setattr(scenario, "BEFORE_SECONDS", 0.5)
    monkeypatch.setattr(scenario, "AFTER_SECONDS", 0.5)
    monkeypatch.setattr(scenario, "WHOLE_SECONDS", 2)
    monkeypatch.setitem(faults.HOST_FAULTS, "mark", faults.Scripts(make=":"))
    with socket.create_server(("127.0.0.1", 0)) as nginx:
        one = {"address": "127.0.0.1"}
        plan = plan_of(
            host("e1", "edges") | one, host("b1", "backends") | one,
            vip="127.0.0.1", url=fake.url, port=nginx.getsockname()[1], controller_ca_file="",
        )  # fmt: skip
        yield Cluster(plan, faults.Helper([], str(tmp_path)), [])


def test_a_scenario_comes_to_its_figures(here: Cluster) -> None:
    one = catalogue.Scenario(
        name="mark", title="", target="planned", faults=(Fault(kind="mark", on="edges"),), seconds=1
    )
    found = scenario.run(one, here)
    assert found["held"], found
    assert found["victims"] == ["e1"]
    assert found["figures"]["sent"] > 40
    assert found["figures"]["longest_gap_seconds"] < 0.3


def test_the_vip_is_taken_from_no_edge_that_is_alone(here: Cluster) -> None:
    with pytest.raises(HostError, match=r"no other edge can take the VIP: .*; nothing was broken"):
        scenario.run(catalogue.by_name("edge_stopped"), here)


# --- what is no measurement


def test_a_playbook_that_outlasts_the_load_is_left_to_its_end(tmp_path: Path) -> None:
    done = tmp_path / "done"
    plan = plan_of(
        host("e1", "edges"), host("b1", "backends"),
        playbook=["sh", "-c", f"sleep 0.5; touch {done}"], reports=str(tmp_path),
    )  # fmt: skip
    rollback = catalogue.by_name("rollback")
    with pytest.raises(HostError, match=r"rollback.yml took longer than the load, 550 s"):
        scenario._play(rollback, plan, until=time.monotonic() + 0.1)
    assert done.exists()
    scenario._play(rollback, plan, until=time.monotonic() + 60)


def test_a_load_that_did_not_send_what_was_due_is_no_measurement() -> None:
    requests = [Request(due=number, ended=number, url="") for number in range(95)]
    scenario.check_sent(requests, 100)
    with pytest.raises(HostError, match="only 95 of the 200 requests that were due were sent"):
        scenario.check_sent(requests, 200)
    with pytest.raises(HostError, match="only 0 of the 10"):
        scenario.check_sent([], 10)


def test_an_error_of_the_drill_itself_is_told_in_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_all(*arguments: Any) -> None:
        arguments[-1].append("hang on b1")
        raise KeyError("boot")

    monkeypatch.setattr(environment, "describe", lambda _: {})
    monkeypatch.setattr(program, "_run_all", run_all)
    plan = plan_of(host("e1", "edges"), host("b1", "backends"), reports=str(tmp_path))
    assert program.drill(plan, [], {}) == 1
    said = capsys.readouterr().out
    assert "an error of the drill itself, KeyError: 'boot'" in said
    assert "Not known to be undone: hang on b1." in said
    (data,) = tmp_path.glob("drill-*.json")
    assert json.loads(data.read_text())["still_broken"] == ["hang on b1"]
