"""What the benchmarks make of what they measured."""

from __future__ import annotations

import pytest
from tests.bench.figures import (
    Report,
    Target,
    WrkRun,
    median,
    median_ratio,
    parse_wrk,
    spread,
    table,
)

WRK = """\
Running 2s test @ http://127.0.0.1:3000/example.com/m/@v/v1.0.0.mod
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.61ms  508.79us  11.62ms   86.26%
    Req/Sec    39.55k     2.46k   43.91k    70.00%
  78752 requests in 2.00s, 35.45MB read
Requests/sec:  39321.44
Transfer/sec:     17.70MB
"""


def test_wrk_is_read() -> None:
    assert parse_wrk(WRK) == WrkRun(requests=78752, rate=39321.44)


@pytest.mark.parametrize(
    "line",
    ["  Non-2xx or 3xx responses: 7", "  Socket errors: connect 0, read 3, write 0, timeout 0"],
)
def test_a_rate_with_errors_in_it_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=line.partition(":")[0].strip()):
        parse_wrk(WRK.replace("Requests/sec", f"{line}\nRequests/sec"))


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:3000\n"])
def test_what_is_not_wrks_report_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match="not wrk's report"):
        parse_wrk(output)


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The machine was slow in the second round, for both sides.
    assert median_ratio([100, 10, 95], [100, 20, 100]) == pytest.approx(0.95)
    assert median([3, 1, 2]) == 2


def test_sides_with_unequal_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        median_ratio([1, 2], [1])


def test_spread() -> None:
    assert spread([1234.5, 1000, 2000.4]) == "1,234 (1,000 to 2,000)"
    assert spread([0.5], 2) == "0.50 (0.50 to 0.50)"


@pytest.mark.parametrize(
    ("value", "at_least", "held"),
    [(0.95, True, True), (0.949, True, False), (1.3, False, False), (0.5, False, True)],
)
def test_a_target_is_held_or_missed(value: float, *, at_least: bool, held: bool) -> None:
    target = Target(what="the ratio", value=value, limit=0.95, at_least=at_least)
    assert target.held is held
    assert target.sentence().startswith("held: " if held else "MISSED: ")


def test_a_table_is_aligned() -> None:
    assert table(("who", "n"), [("edge", "1")]) == [
        "| who  | n |",
        "|------|---|",
        "| edge | 1 |",
    ]
    with pytest.raises(ValueError, match="2 cells"):
        table(("who", "n"), [("edge",)])


def test_a_report_for_people_and_for_programs() -> None:
    target = Target(what="memory", value=125.4, limit=200, unit=" MB")
    report = Report(
        title="Memory", columns=("a",), rows=[("b",)], targets=[target], raw={"mb": [125.4]}
    )
    assert report.markdown().splitlines() == [
        "### Memory",
        "",
        "| a |",
        "|---|",
        "| b |",
        "",
        "- held: memory is 125 MB, target at most 200 MB",
    ]
    kept = report.as_json()
    assert kept["raw"] == {"mb": [125.4]}
    assert kept["targets"][0]["held"] is True
