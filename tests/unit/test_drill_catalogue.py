"""The drill's scenarios and targets, what an inventory may run, and how faults are made."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.ansible_plugin import ROOT, load

from modhaven.drill import catalogue, faults, report, watch
from modhaven.drill.hosts import Host, HostError, Program
from modhaven.drill.plan import Plan

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = ("helper", "vip", "backup", "primaries")
LOCAL = Host(name="here", address="127.0.0.1", groups=frozenset({"backends"}))
drill = load("filter/drill.py")


def test_names_are_unique_and_targets_exist() -> None:
    names = [one.name for one in catalogue.SCENARIOS]
    assert len(set(names)) == len(names)
    assert {one.target for one in catalogue.SCENARIOS} == set(catalogue.TARGETS)


@pytest.mark.parametrize("scenario", catalogue.SCENARIOS, ids=lambda one: one.name)
def test_a_scenario_is_something_that_can_be_done(scenario: catalogue.Scenario) -> None:
    assert bool(scenario.faults) != bool(scenario.playbook)
    if scenario.playbook:
        assert (ROOT / scenario.playbook).is_file()
    by_helper = [one for one in scenario.faults if one.kind not in faults.HOST_FAULTS]
    assert not by_helper or "helper" in scenario.needs
    # What a helper alone can do, and what files only it makes cold, nobody can do elsewhere.
    assert not scenario.safe or "helper" not in scenario.needs


@pytest.mark.parametrize("kind", faults.HOST_FAULTS)
def test_a_fault_is_a_script_that_sh_takes(kind: str) -> None:
    scripts = faults.HOST_FAULTS[kind]
    filled = {"units": "a.service b.service", "store": "/srv/a", "vip": "10.0.3.100"}
    for script in (scripts.make, scripts.undo):
        subprocess.run(["sh", "-n", "-c", script.format(**filled)], check=True)


def test_the_lab_runs_everything_and_production_what_is_safe() -> None:
    every, left = catalogue.choose([], lab=True, has=EVERYTHING)
    assert (len(every), left) == (len(catalogue.SCENARIOS), {})
    safe, left = catalogue.choose([], lab=False, has=EVERYTHING)
    assert [one.name for one in safe] == [
        "backend_killed", "backend_hung", "edge_stopped", "reload_storm",
    ]  # fmt: skip
    assert len(left) == len(catalogue.SCENARIOS) - 4


def test_what_the_inventory_cannot_do_is_left_out_or_refused() -> None:
    chosen, left = catalogue.choose([], lab=True, has=())
    assert [one.name for one in chosen] == ["reload_storm", "rollback", "rolling_update"]
    assert left["edge_killed"] == "this inventory has no VIP with two edges"
    with pytest.raises(ValueError, match="edge_killed cannot be run: this inventory has no VIP"):
        catalogue.choose(["edge_killed"], lab=True, has=())


def test_named_ones_run_in_the_catalogues_order() -> None:
    chosen, left = catalogue.choose(["rolling_update", "backend_hung"], lab=False, has=EVERYTHING)
    assert [one.name for one in chosen] == ["backend_hung", "rolling_update"]
    assert left["edge_killed"] == "not asked for"
    with pytest.raises(ValueError, match=r"names 'backend_hug'; the scenarios are backend_killed"):
        catalogue.choose(["backend_hug"], lab=True, has=EVERYTHING)


def test_the_inventory_changes_single_targets() -> None:
    own = catalogue.targets({"edge": {"switch_over_seconds": 1.5}})
    assert own["edge"] == {"switch_over_seconds": 1.5, "failed_builds": 0, "wrong_bytes": 0}
    assert own["backend"] == catalogue.TARGETS["backend"]
    with pytest.raises(ValueError, match="drill_targets has 'edges'; there are backend"):
        catalogue.targets({"edges": {"failed": 0}})
    with pytest.raises(ValueError, match=r"drill_targets.edge has 'gap'; there are"):
        catalogue.targets({"edge": {"gap": 1}})


def test_the_table_names_every_scenario() -> None:
    lines = report.columns(catalogue.rows()).splitlines()[1:]
    assert [line.split()[0] for line in lines] == [one.name for one in catalogue.SCENARIOS]


# --- the plan


def a_plan(**own: Any) -> dict[str, Any]:
    groups = {"edges": ["e1", "e2"], "backends": ["b1", "b2"], "clients": []}
    hostvars: dict[str, dict[str, Any]] = {
        name: {"ansible_host": f"10.0.3.{number}"}
        for number, name in enumerate(["e1", "e2", "b1", "b2"], 1)
    }
    hostvars["b2"]["backend_backup"] = True
    return {
        "hosts": drill.drill_hosts(groups, hostvars),
        "inventory": "inventories/lab", "vip": "10.0.3.100", "url": "https://10.0.3.100:443",
        "addresses": {}, "port": 443, "store": "/srv", "mirrors": ["goproxy.cn"],
        "playbook": ["ansible-playbook"], "root": str(ROOT), "reports": "reports",
        "controller_ca_file": "/ca.crt", "client_ca_file": "/bundle.crt", "rate": 30,
        "modules": ["rsc.io/quote@v1.5.2"], **own,
    }  # fmt: skip


def test_a_plan_says_what_the_inventory_offers() -> None:
    plan = Plan.from_json(a_plan())
    assert [host.name for host in plan.primaries] == ["b1"]
    assert plan.has == {"vip", "backup", "primaries"}
    assert plan.allowed == ["10.0.3.100", "10.0.3.1", "10.0.3.2"]
    # Nobody is listed under clients: the controller asks.
    assert [client.name for client in plan.clients] == ["controller"]
    assert plan.ca_file == "/ca.crt"


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"hosts": []}, "no edges or no backends"),
        ({"rate": 0}, "drill_rate is 0"),
        ({"modules": ["rsc.io/quote"]}, "drill_modules must be MODULE@VERSIONs"),
    ],
)
def test_a_plan_that_cannot_be_is_one_sentence(own: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Plan.from_json(a_plan(**own))


def run_drill(plan: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modhaven.drill"],
        cwd=ROOT / "app",
        input=json.dumps(plan) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_word_nothing_happens_in_production() -> None:
    done = run_drill(a_plan())
    assert done.returncode == 2
    assert "Nothing was done. To do it: -e drill_confirm=yes" in done.stdout
    assert "backend_hung" in done.stdout
    assert "primaries_lost" not in done.stdout


def test_the_catalogue_can_be_listed_unconfirmed() -> None:
    done = run_drill(a_plan(scenarios=["list"]))
    assert (done.returncode, done.stdout) == (0, report.columns(catalogue.rows()) + "\n")


def test_a_mistake_is_one_sentence() -> None:
    done = run_drill(a_plan(scenarios=["nope"], lab=True))
    assert done.returncode == 2
    assert done.stdout.startswith("The drill cannot be run: drill_scenarios names 'nope'")


# --- the filters


def test_a_host_is_reached_as_ansible_reaches_it() -> None:
    command = drill.ssh_command(
        {
            "ansible_host": "192.0.2.7", "ansible_user": "deploy", "ansible_port": 2222,
            "ansible_ssh_private_key_file": "/k", "ansible_ssh_common_args": "-o A='b c'",
        },
        "b1",
    )  # fmt: skip
    assert command == ["ssh", "-o", "A=b c", "-i", "/k", "-p", "2222", "-l", "deploy", "192.0.2.7"]
    assert drill.ssh_command({"ansible_connection": "local"}, "b1") == []


def test_the_mirrors_are_the_chains_hosts() -> None:
    assert drill.drill_mirrors("https://a.example|https://b.example,direct") == [
        "a.example", "b.example",
    ]  # fmt: skip
    assert drill.drill_mirrors([{"url": "https://a.example/x"}, {"url": "direct"}]) == ["a.example"]


# --- programs


def test_a_program_tells_line_by_line_and_ends_with_its_input() -> None:
    told: list[dict[str, Any]] = []
    script = 'read -r plan; echo "$plan"; echo no json; echo "{\\"made\\": 1}"; cat > /dev/null'
    program = Program("it", ["sh", "-c", script], plan={"on": 7}, told=told.append)
    assert program.first() == {"on": 7}
    assert program.wait_for("made", 5) == 1
    assert program.is_running
    program.end(5)
    assert told == [{"on": 7}, {"made": 1}]


def test_a_program_that_fails_says_why() -> None:
    program = Program("it", ["sh", "-c", "echo 'a reason' >&2; exit 3"])
    with pytest.raises(HostError, match="it ended before it said anything: a reason"):
        program.first()
    with pytest.raises(HostError, match="it failed: a reason"):
        program.end()


def test_a_fault_is_undone_when_its_maker_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "broken"
    scripts = faults.Scripts(make=f"touch {mark}", undo=f"rm {mark}")
    monkeypatch.setitem(faults.HOST_FAULTS, "mark", scripts)
    # A host has systemd; here its timer is not what is tested.
    (tmp_path / "systemd-run").write_text("#!/bin/sh\n")
    (tmp_path / "systemctl").write_text("#!/bin/sh\n")
    for name in ("systemd-run", "systemctl"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(Host, "command", lambda _self, argv: list(argv))
    program = faults.hold_on(LOCAL, "mark", "primary", store="/srv", vip="")
    program.wait_for("ready", 10)
    assert not mark.exists()
    program.tell("go")
    program.wait_for("made", 10)
    assert mark.exists()
    program.end(10)
    assert not mark.exists()


def test_a_fault_that_nobody_lets_go_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "broken"
    monkeypatch.setitem(faults.HOST_FAULTS, "mark", faults.Scripts(make=f"touch {mark}"))
    monkeypatch.setattr(Host, "command", lambda _self, argv: list(argv))
    program = faults.hold_on(LOCAL, "mark", "primary", store="/srv", vip="")
    program.wait_for("ready", 10)
    program.end(10)
    assert not mark.exists()


def test_a_backend_that_is_an_edge_too_keeps_its_nginx() -> None:
    both = Host(name="go1", address="10.0.3.1", groups=frozenset({"edges", "backends"}))
    assert faults.units_of(both, "primary", "kill") == "modhaven.service"
    assert faults.units_of(both, "primaries", "stop") == "modhaven.socket modhaven.service"
    assert faults.units_of(both, "vip_master", "kill") == "nginx.service"
    assert faults.units_of(LOCAL, "primary", "kill") == "nginx.service modhaven.service"


def test_an_address_of_this_host_is_known_without_a_program() -> None:
    assert watch.has_address("127.0.0.1")
    assert not watch.has_address("192.0.2.1")
    assert not watch.has_address("2001:db8::1")
