"""A drill's report: for people first, and honest about what was not run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from modhaven.drill import catalogue, report

if TYPE_CHECKING:
    from pathlib import Path

FIGURES: dict[str, Any] = {
    "sent": 600, "failed": 0, "wrong_bytes": 0, "longest_gap_seconds": 0.11, "p50_ms": 8.1,
    "p99_ms": 33.4, "needed_backend_percent": 97.5, "served_percent": 100.0, "stale_percent": None,
    "first_answer_seconds": None, "detection_seconds": 1.92, "switch_over_seconds": 0.0,
    "recovery_seconds": 1.04, "builds": 22, "failed_builds": 0,
}  # fmt: skip
HELD = {"measure": "failed", "limit": 0, "value": 0, "held": True}
MISSED = {"measure": "detection_seconds", "limit": 1, "value": 1.92, "held": False}


def result(name: str, outcome: str, **own: Any) -> dict[str, Any]:
    one = catalogue.by_name(name)
    return {"name": name, "title": one.title, "target": one.target, "outcome": outcome, **own}


def a_drill(
    *results: dict[str, Any], stopped: str = "", still_broken: list[str] | None = None
) -> dict[str, Any]:
    return {
        "results": list(results),
        "targets": catalogue.TARGETS,
        "environment": {"date": "today", "hosts": {"edge1": {"cores": "2", "nginx": "1.22.1"}}},
        "stopped": stopped,
        "still_broken": still_broken or [],
    }


def test_a_line_says_whether_the_target_was_held() -> None:
    held = result("backend_killed", "held", figures=FIGURES, checks=[HELD], victims=["backend1"])
    assert report.line(held).startswith(
        "HELD  detection 1.92; switch-over none; recovery 1.04; 600 r"
    )
    missed = held | {"checks": [HELD, MISSED], "outcome": "missed"}
    assert report.line(missed).startswith("MISSED (detection 1.92, target at most 1)")
    assert report.line(result("rollback", "failed", why="no way")) == "FAILED  no way"


def test_both_files_say_what_was_broken_what_users_saw_and_what_was_not_run(tmp_path: Path) -> None:
    drill = a_drill(
        result("backend_killed", "held", figures=FIGURES, checks=[HELD], victims=["backend1"]),
        result("backend_hung", "missed", figures=FIGURES, checks=[MISSED], victims=["backend1"]),
        result("rollback", "failed", why="rollback.yml failed: it.log"),
        result("rolling_update", "not run", why="not asked for"),
    )
    data, text = report.write(tmp_path / "reports", "drill-now", drill)
    assert json.loads(data.read_text()) == drill
    told = text.read_text()
    assert "**1 of 3 scenarios held their targets.** Missed: backend_hung." in told
    assert "Could not be run: rollback." in told
    assert "(backend1). None of 600 requests failed, none of 22 builds; the longest gap" in told
    assert "**Missed:** detection 1.92, target at most 1." in told
    assert "| backend_killed | held | 1.92 | none | - | 1.04 | 600 | 0 |" in told
    assert "- not asked for: rolling_update" in told
    assert "- edge1: cores 2, nginx 1.22.1" in told


def test_a_drill_that_was_stopped_says_so() -> None:
    told = report.markdown(a_drill(stopped="it was told to end"))
    assert "The drill was stopped before its end (it was told to end)." in told
    assert "What it had broken is undone." in told


def test_what_is_not_known_to_be_undone_is_told() -> None:
    left = ["hang on b1 (b1 undoes it 120 s after it was prepared)", "link_down by the helper"]
    told = report.markdown(a_drill(stopped="it was told to end", still_broken=left))
    assert "Not known to be undone: hang on b1 (b1 undoes it 120 s after" in told
    assert "; link_down by the helper." in told
    assert "is undone" not in told


def test_a_scenario_in_which_nothing_was_answered_can_be_told() -> None:
    nothing = {
        "sent": 40, "failed": 40, "p50_ms": None, "p99_ms": None, "needed_backend_percent": None,
        "served_percent": None, "stale_percent": 0.0, "longest_gap_seconds": None,
    }  # fmt: skip
    one = result("mirrors_lost", "missed", figures={**FIGURES, **nothing}, checks=[MISSED])
    assert "longest gap -; p50 - ms, p99 - ms" in report.line(one)
    told = report.markdown(a_drill(one))
    assert "- of known files were served, 0 % of lists labelled stale" in told
    assert "- of the answers needed a backend." in told
