"""From what was seen in a drill to figures and verdicts."""

from __future__ import annotations

from typing import Any

import pytest

from modhaven.drill.figures import (
    Build,
    Look,
    Request,
    Seen,
    has_successor,
    is_whole,
    judge,
    measure,
)

URL = "https://10.0.3.100/m/@v/v1.0.0.zip"
ALL = frozenset({"backend1", "backend2"})


def requests(
    seconds: float = 10, *, rate: int = 20, errors: tuple[float, float] = (0, 0), **own: Any
) -> list[Request]:
    """A request each 1/rate s, each answered after 10 ms; those due between `errors` fail."""
    dues = [number / rate for number in range(int(seconds * rate))]
    return [
        Request(
            due=due,
            ended=due + 0.01,
            url=URL,
            error="refused" if errors[0] <= due < errors[1] else "",
            cache="MISS",
            backend="backend1",
            **own,
        )
        for due in dues
    ]


def look(
    edge: str, time: float, *, vip: bool = False, asked: frozenset[str] = ALL, **own: Any
) -> Look:
    given = {"answers": True, "published": True, "up": asked, **own}
    return Look(edge=edge, time=time, vip=vip, asked=asked, **given)


def seen(asked: list[Request], **own: Any) -> Seen:
    given = {"builds": (), "looks": (), "fault": 3.0, "undone": 8.0, "whole": 9.5, **own}
    return Seen(requests=asked, **given)


def test_when_nobody_notices_there_is_no_switch_over() -> None:
    found = measure(seen(requests()))
    assert (found["sent"], found["failed"], found["wrong_bytes"]) == (200, 0, 0)
    assert found["switch_over_seconds"] == 0
    assert found["longest_gap_seconds"] == pytest.approx(0.01)
    assert found["recovery_seconds"] == 1.5
    assert found["needed_backend_percent"] == 100
    assert (found["builds"], found["failed_builds"]) == (0, None)


def test_the_switch_over_lasts_from_the_fault_to_the_first_answer_after_the_last_failure() -> None:
    found = measure(seen(requests(errors=(3.0, 3.6))))
    assert found["failed"] == 12
    assert found["switch_over_seconds"] == pytest.approx(0.61, abs=0.011)
    assert found["errors"] == {"refused": 12}


def test_what_failed_is_told_request_by_request() -> None:
    lists = [
        Request(due=4.0, ended=4.5, url=URL, mutable=True, source="goproxy.cn"),
        Request(due=5.0, ended=5.5, url=URL, mutable=True, stale="60"),
    ]
    told = measure(seen([*lists, *requests(errors=(3.0, 3.05))]))["failures"]
    assert [(one["after_fault_seconds"], one["lasted_seconds"], one["why"]) for one in told] == [
        (0.0, 0.01, "refused"),
        (1.0, 0.5, "not labelled stale"),
    ]
    assert told[1]["source"] == "goproxy.cn"
    assert len(measure(seen(requests(errors=(3.0, 9.0))))["failures"]) == 20


def test_who_is_killed_recovers_from_the_kill_on() -> None:
    assert measure(seen(requests(), whole=4.2, lasts=False))["recovery_seconds"] == 1.2
    # Nobody ever took it out.
    assert measure(seen(requests(), whole=1.0, lasts=False))["recovery_seconds"] == 0


def test_a_pause_without_failures_is_a_switch_over_too() -> None:
    # Answered late, as a connection is whose first packet was lost.
    late = [
        Request(
            due=one.due, ended=max(one.ended, 3.7) if 3 <= one.due < 3.7 else one.ended, url=URL
        )
        for one in requests()
    ]
    found = measure(seen(late))
    assert found["failed"] == 0
    assert found["switch_over_seconds"] == pytest.approx(0.7, abs=0.011)
    assert found["max_ms"] == pytest.approx(700, abs=11)


def test_a_failure_before_the_fault_counts_but_is_no_switch_over() -> None:
    found = measure(seen(requests(errors=(2.0, 2.5))))
    assert found["failed"] == 10
    assert found["switch_over_seconds"] == 0
    assert found["longest_gap_seconds"] == pytest.approx(0.51, abs=0.011)


def test_an_outage_after_the_fault_is_undone_is_a_switch_over() -> None:
    # A reboot is ordered in a moment; and a cut edge may disturb when it comes back.
    found = measure(seen(requests(errors=(8.5, 9.0))))
    assert found["failed"] == 10
    assert found["switch_over_seconds"] == pytest.approx(0.51, abs=0.011)


def test_without_any_answer_the_switch_over_lasts_to_the_end_of_the_load() -> None:
    found = measure(seen(requests(errors=(0, 99))))
    assert found["switch_over_seconds"] == pytest.approx(6.95, abs=0.011)
    assert found["p99_ms"] is None
    assert found["longest_gap_seconds"] == pytest.approx(9.95)


def test_without_a_request_no_target_is_held() -> None:
    found = measure(seen([]))
    assert (found["sent"], found["failed"], found["longest_gap_seconds"]) == (0, 0, None)
    target = {"failed": 0, "longest_gap_seconds": 0.3, "switch_over_seconds": 0.7, "wrong_bytes": 0}
    assert [check.held for check in judge(found, target)] == [False] * 4


def test_a_backend_is_detected_when_every_edge_has_it_out() -> None:
    rest = ALL - {"backend1"}
    looks = [look("edge1", 0), look("edge2", 0), look("edge1", 4.0, asked=rest)]
    only_one = measure(seen(requests(), looks=looks, lost_backends={"backend1"}))
    assert only_one["detection_seconds"] is None
    looks.append(look("edge2", 4.5, asked=rest))
    both = measure(seen(requests(), looks=looks, lost_backends={"backend1"}))
    assert both["detection_seconds"] == 1.5


def test_an_edge_is_detected_when_another_one_has_the_vip() -> None:
    looks = [look("edge1", 0, vip=True), look("edge2", 0), look("edge2", 3.4, vip=True)]
    # The one that was cut off believes for a while that it has it.
    looks.append(look("edge1", 3.1, vip=True))
    found = measure(seen(requests(), looks=looks, lost_edges={"edge1"}))
    assert found["detection_seconds"] == 0.4


def test_a_backend_that_is_an_edge_too_is_detected_as_a_backend() -> None:
    rest = ALL - {"backend1"}
    looks = [
        look("backend1", 0, vip=True), look("backend2", 0),
        # The VIP moves for a reason of its own.
        look("backend2", 3.1, vip=True), look("backend2", 4.0, vip=True, asked=rest),
        look("backend1", 4.5, asked=rest),
    ]  # fmt: skip
    found = measure(seen(requests(), looks=looks, lost_backends={"backend1"}))
    assert found["detection_seconds"] == 1.5
    # Without its power it sees nothing, and nobody waits for it.
    gone = {"lost_backends": {"backend1"}, "cut": {"backend1"}}
    assert measure(seen(requests(), looks=looks[:-1], **gone))["detection_seconds"] == 1.0


def test_the_first_answer_is_another_mirrors() -> None:
    asked = requests(source="goproxy.cn")
    asked += [Request(due=3.1, ended=4.7, url=URL, source="goproxy.io")]
    asked += [Request(due=2.9, ended=3.0, url=URL, source="goproxy.io")]
    assert measure(seen(asked, mirror="goproxy.cn"))["first_answer_seconds"] == 1.7


def test_lists_are_counted_apart() -> None:
    lists = [
        Request(due=4, ended=4.1, url="https://v/m/@v/list", mutable=True, stale=stale)
        for stale in ("3", "", "5", "7")
    ]
    found = measure(seen([*requests(errors=(3.0, 3.05)), *lists]))
    assert found["sent"] == 200
    assert found["stale_percent"] == 75
    assert found["served_percent"] == 99.2


def test_builds_and_wrong_bytes_are_counted() -> None:
    builds = [Build(started=1, ended=2, ok=True), Build(started=3, ended=4, ok=False, said="no")]
    wrong = Request(due=5, ended=5.1, url=URL, error="wrong bytes", wrong_bytes=True)
    found = measure(seen([*requests(), wrong], builds=builds))
    assert (found["builds"], found["failed_builds"], found["wrong_bytes"]) == (2, 1, 1)
    assert found["failed_builds_said"] == ["no"]


def test_a_target_is_at_most_but_for_percents() -> None:
    found = measure(seen(requests(errors=(3.0, 3.05))))
    checks = judge(
        found, {"failed": 0, "longest_gap_seconds": 0.3, "served_percent": 99, "failed_builds": 0}
    )
    # No client builds: nothing to hold.
    assert {check.measure: check.held for check in checks} == {
        "failed": False,
        "longest_gap_seconds": True,
        "served_percent": True,
    }


def test_what_was_not_seen_holds_no_target() -> None:
    (check,) = judge(measure(seen(requests())), {"detection_seconds": 3})
    assert (check.value, check.held) == (None, False)


def test_whole_is_every_backend_on_every_edge_and_one_vip() -> None:
    looks = {"edge1": look("edge1", 0, vip=True), "edge2": look("edge2", 0)}
    assert is_whole(looks, up=ALL, vip=True)
    assert not is_whole(looks, up=ALL | {"backend3"}, vip=True)
    assert not is_whole(looks | {"edge2": look("edge2", 0, vip=True)}, up=ALL, vip=True)
    assert not is_whole({"edge2": looks["edge2"]}, up=ALL, vip=True)
    assert is_whole({"edge2": looks["edge2"]}, up=ALL, vip=False)


def test_the_vip_has_where_to_go_when_another_edge_can_take_it() -> None:
    master = look("edge1", 0, vip=True, can_take_vip=True)
    assert not has_successor({"edge1": master})
    assert not has_successor({"edge1": master, "edge2": look("edge2", 0)})
    assert has_successor({"edge1": master, "edge2": look("edge2", 0, can_take_vip=True)})
    silent = look("edge2", 0, can_take_vip=True, answers=False)
    assert not has_successor({"edge1": master, "edge2": silent})
