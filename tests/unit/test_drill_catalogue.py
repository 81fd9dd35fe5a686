"""The drill's scenarios and targets, what an inventory may run, and the programs it starts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.ansible_plugin import ROOT, load

from modhaven.drill import catalogue, faults, report, targets, watch
from modhaven.drill.hosts import HostError, Program
from modhaven.drill.load import Plan as LoadPlan
from modhaven.drill.plan import LOAD_SECONDS, MAX_RATE, Plan

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = ("helper", "vip", "backup", "primaries")
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
    filled = {
        "units": "a.service b.service", "store": "/srv/a", "vip": "10.0.3.100", "name": "drill-1",
    }  # fmt: skip
    for script in (scripts.make, scripts.undo):
        subprocess.run(["sh", "-n", "-c", script.format(**filled)], check=True)
    # systemd would fill it in.
    assert "$" not in scripts.undo


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
    own = targets.read({"edge": {"switch_over_seconds": 1.5}})
    assert own["edge"] == {"switch_over_seconds": 1.5, "failed_builds": 0, "wrong_bytes": 0}
    assert own["backend"] == catalogue.TARGETS["backend"]
    with pytest.raises(ValueError, match="drill_targets has 'edges'; there are backend"):
        targets.read({"edges": {"failed": 0}})
    with pytest.raises(ValueError, match=r"drill_targets.edge has 'gap'; there are"):
        targets.read({"edge": {"gap": 1}})


@pytest.mark.parametrize("value", ["0.7", None, -1, True, float("nan")])
def test_a_target_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"drill_targets.edge.switch_over_seconds is .* a number"):
        targets.read({"edge": {"switch_over_seconds": value}})


@pytest.mark.parametrize("own", [None, {"edge": None}, {"edge": 0.7}])
def test_targets_that_are_no_table_are_refused(own: Any) -> None:
    with pytest.raises(ValueError, match=r"^drill_targets(\.edge)? is .*; it must be"):
        targets.read(own)


def test_a_rate_too_low_for_the_targets_of_what_runs_is_refused() -> None:
    planned = [catalogue.by_name("reload_storm")]
    targets.check_rate(14, planned, catalogue.TARGETS)
    with pytest.raises(ValueError, match=r"drill_rate is 2 a second.* shorter than 2 s is noticed"):
        targets.check_rate(2, planned, catalogue.TARGETS)
    with pytest.raises(ValueError, match="switch_over_seconds of the target edge is 0"):
        targets.check_rate(
            181,
            [catalogue.by_name("edge_killed")],
            targets.read({"edge": {"switch_over_seconds": 0}}),
        )
    # It has no such target.
    targets.check_rate(1, [catalogue.by_name("backend_hung")], catalogue.TARGETS)


def test_a_stopped_edge_that_nobody_noticed_holds_no_target() -> None:
    assert "detection_seconds" in catalogue.TARGETS[catalogue.by_name("edge_stopped").target]


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
        ({"rate": 182}, "drill_rate is 182; it must be from 1 to 181 a second"),
        ({"modules": []}, "drill_modules is empty"),
        ({"modules": ["rsc.io/quote"]}, "'rsc.io/quote' is none"),
        ({"modules": ["rsc.io/quote@vnext"]}, "not a semantic version"),
        ({"modules": ["@v1.0.0"]}, "drill_modules must be MODULE@VERSIONs"),
    ],
)
def test_a_plan_that_cannot_be_is_one_sentence(own: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Plan.from_json(a_plan(**own))


def test_the_highest_rate_is_one_that_the_load_takes() -> None:
    plan = Plan.from_json(a_plan(rate=MAX_RATE))
    bounds = {"rate": plan.rate, "seconds": LOAD_SECONDS, "allowed": plan.allowed}
    assert LoadPlan.from_json({"targets": [{"url": plan.url, "sha256": ""}], **bounds})


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
    for own in ({"targets": {"edge": {"switch_over_seconds": "0.7"}}}, {"rate": 2}):
        done = run_drill(a_plan(lab=True, **own))
        assert (done.returncode, done.stderr) == (2, "")
        assert done.stdout.startswith("The drill cannot be run: drill_")


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


def test_an_address_of_this_host_is_known_without_a_program() -> None:
    assert watch.has_address("127.0.0.1")
    assert not watch.has_address("192.0.2.1")
    assert not watch.has_address("2001:db8::1")


def test_an_edge_that_is_kept_out_cannot_take_the_vip(tmp_path: Path) -> None:
    pid, stay_out = tmp_path / "keepalived.pid", tmp_path / "vip-stay-out"
    assert not watch.can_take_vip(str(pid), str(stay_out))
    # Another process has its number by now.
    pid.write_text(f"{os.getpid()}\n")
    assert not watch.can_take_vip(str(pid), str(stay_out))
    program = tmp_path / "keepalived"
    program.symlink_to(shutil.which("sleep") or "")
    with subprocess.Popen([program, "60"]) as keepalived:
        try:
            pid.write_text(f"{keepalived.pid}\n")
            # It has its name a moment after its number.
            end = time.monotonic() + 10
            while not watch.can_take_vip(str(pid), str(stay_out)):
                assert time.monotonic() < end
            stay_out.touch()
            assert not watch.can_take_vip(str(pid), str(stay_out))
        finally:
            keepalived.kill()
