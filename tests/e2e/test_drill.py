"""The failover drill itself: honest about what was missed, and harmless when it is killed."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e import cluster
from tests.e2e.playbook import play
from tests.lab import remote
from tests.lab.inventory import ROOT, lab, tool
from tests.lab.web import get

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Say

DRILL = "playbooks/drill.yml"
UNDONE_SECONDS = 60


@pytest.fixture(autouse=True)
def _whole() -> Iterator[None]:
    cluster.wait_until_whole()
    yield
    cluster.wait_until_whole()


def report_of(folder: Path) -> tuple[dict[str, Any], str]:
    """The results by scenario, and the report for people."""
    (data,) = folder.glob("drill-*.json")
    told = json.loads(data.read_text())
    return {one["name"]: one for one in told["results"]}, data.with_suffix(".md").read_text()


def test_a_target_that_cannot_be_held_is_missed_and_the_drill_fails(
    tmp_path: Path, say: Say
) -> None:
    own = {
        "drill_scenarios": ["backend_killed", "edge_stopped"],
        "drill_targets": {"backend": {"detection_seconds": 0}},
        "drill_reports": str(tmp_path),
    }
    run = play(DRILL, lab().path, "-e", json.dumps(own))
    results, text = report_of(tmp_path)
    for line in run.output.splitlines():
        if line.startswith(("    HELD", "    MISSED")):
            say(line.strip())
    assert not run.ok
    assert "A target was missed" in run.output
    assert results["backend_killed"]["outcome"] == "missed"
    assert "**Missed:** detection" in text
    killed, stopped = (results[name]["figures"] for name in ("backend_killed", "edge_stopped"))
    # The other targets are real ones.
    assert (killed["failed"], killed["wrong_bytes"]) == (0, 0)
    assert results["edge_stopped"]["outcome"] == "held", results["edge_stopped"]
    for figures in (killed, stopped):
        assert figures["sent"] > 200
        assert figures["needed_backend_percent"] > 50
        assert figures["builds"] > 3
        assert figures["failed_builds"] == 0
    assert results["rollback"] == results["rollback"] | {
        "outcome": "not run",
        "why": "not asked for",
    }
    for word in ("2 scenarios", "nginx", "kernel", "10.0.3.100"):
        assert word in text


def test_a_drill_that_is_killed_leaves_nothing_broken(tmp_path: Path) -> None:
    own = {"drill_scenarios": "backend_hung,rolling_update", "drill_reports": str(tmp_path)}
    victim = cluster.primaries()[0]
    process = subprocess.Popen(
        [tool("ansible-playbook"), "-i", lab().path, DRILL, "-e", json.dumps(own)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        remote.wait_until(f"{victim.name} to hang", lambda: hangs(victim.name), 60, every=0.2)
    finally:
        process.kill()
        process.wait()
    began = time.monotonic()
    remote.wait_until(
        f"{victim.name} to go on", lambda: not hangs(victim.name), UNDONE_SECONDS, every=0.2
    )
    remote.wait_until("the report", lambda: any(tmp_path.glob("*.md")), UNDONE_SECONDS, every=0.2)
    assert time.monotonic() - began < UNDONE_SECONDS
    results, text = report_of(tmp_path)
    assert "The drill was stopped before its end" in text
    assert "What it had broken is undone." in text
    assert {one["outcome"] for one in results.values()} == {"not run"}
    assert results["rolling_update"]["why"] == "the drill ended first: it was told to end"
    timers = remote.run(victim.name, "systemctl", "list-timers", "--all").stdout
    assert "modhaven-drill" not in timers


def hangs(host: str) -> bool:
    """Whether the app's main process is stopped (proc(5))."""
    script = 'cut -d " " -f 3 /proc/$(systemctl show -P MainPID modhaven.service)/stat'
    return remote.run(host, "sh", "-c", script, check=False).stdout.strip() == "T"


def test_where_people_depend_on_it_nothing_happens_without_a_word(tmp_path: Path) -> None:
    own = {"drill_lab": False, "drill_reports": str(tmp_path / "none")}
    run = play(DRILL, lab().path, "-e", json.dumps(own))
    assert not run.ok
    assert "Nothing was done. To do it: -e drill_confirm=yes" in run.output
    assert not (tmp_path / "none").exists()
    assert get(cluster.vip(), "/readyz").status == 200
