"""What a benchmark reports: medians, ratios, targets that were held or missed. Pure functions."""

from __future__ import annotations

import dataclasses
import re
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_WRK_TOTAL = re.compile(r"^\s*(\d+) requests in ([0-9.]+)(ms|s|m), ", re.MULTILINE)
_WRK_RATE = re.compile(r"^Requests/sec:\s+([0-9.]+)$", re.MULTILINE)
_WRK_BAD = re.compile(r"^\s*(Non-2xx or 3xx responses|Socket errors): (.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A bound that a measured ``value`` has to keep: ``limit`` at most or at least, in ``unit``."""

    what: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = ""

    @property
    def held(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def sentence(self) -> str:
        bound = "at least" if self.at_least else "at most"
        word = "held" if self.held else "MISSED"
        limit = f"{bound} {_number(self.limit)}{self.unit}"
        return f"{word}: {self.what} is {_number(self.value)}{self.unit}, target {limit}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """One figure: a table for people, its targets, and the raw values of every round."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    targets: Sequence[Target] = ()
    notes: Sequence[str] = ()
    raw: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", *table(self.columns, self.rows)]
        if self.targets or self.notes:
            lines.append("")
        lines += [f"- {target.sentence()}" for target in self.targets]
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines) + "\n"

    def as_json(self) -> dict[str, Any]:
        targets = [{**dataclasses.asdict(target), "held": target.held} for target in self.targets]
        return {"title": self.title, "targets": targets, "raw": self.raw}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table whose columns are aligned; every row has one cell a column."""
    cells = [list(columns), *(list(row) for row in rows)]
    if any(len(row) != len(columns) for row in cells):
        raise ValueError(f"every row must have {len(columns)} cells")
    widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def median(values: Sequence[float]) -> float:
    """Return the median; ValueError where nothing was measured."""
    return statistics.median(values)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the rounds' ratios: what disturbs a round disturbs both sides."""
    return median([mine / other for mine, other in zip(ours, theirs, strict=True)])


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return ``median (smallest to largest)``."""
    smallest, largest = min(values), max(values)
    return f"{median(values):,.{digits}f} ({smallest:,.{digits}f} to {largest:,.{digits}f})"


@dataclass(frozen=True, kw_only=True)
class WrkRun:
    """What wrk counted: answers in all, and a second."""

    requests: int
    rate: float


def parse_wrk(output: str) -> WrkRun:
    """Read wrk's report; ValueError when an answer was an error or a connection broke."""
    bad = _WRK_BAD.search(output)
    if bad is not None:
        raise ValueError(f"wrk met errors, so its rate means nothing: {bad[1]}: {bad[2]}")
    total, rate = _WRK_TOTAL.search(output), _WRK_RATE.search(output)
    if total is None or rate is None:
        raise ValueError(f"this is not wrk's report: {output!r}")
    return WrkRun(requests=int(total[1]), rate=float(rate[1]))


def _number(value: float) -> str:
    return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
