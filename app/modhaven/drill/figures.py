"""From what was seen to figures, and from figures to whether the targets were held. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modhaven.drill.load import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Answers of an edge for which it asked no backend.
_CACHED = ("HIT", "STALE", "UPDATING")
# So many requests of a scenario that failed are told one by one.
_FAILURES_KEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of the load; moments in seconds since the epoch, on the controller's clock.

    ``mutable`` is a list or @latest, whose bytes may change.
    """

    due: float
    ended: float
    url: str
    error: str = ""
    wrong_bytes: bool = False
    sha256: str = ""
    cache: str = ""
    backend: str = ""
    source: str = ""
    stale: str = ""
    mutable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One go mod download of a client; ``said`` is what go said when it failed."""

    started: float
    ended: float
    ok: bool
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What an edge saw from ``time`` on; ``asked`` is the backends in the pool of its nginx.

    ``boot`` tells one start of the edge from another.
    """

    edge: str
    time: float
    boot: str = ""
    vip: bool
    answers: bool
    published: bool
    asked: frozenset[str]
    up: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that was seen of one scenario. The fault was on from ``fault`` to ``undone``.

    One that does not last, as a kill, is over at once: what follows is recovery.
    """

    requests: Sequence[Request]
    builds: Sequence[Build]
    looks: Sequence[Look]
    fault: float
    undone: float
    whole: float | None
    lasts: bool = True
    victims: frozenset[str] = frozenset()
    mirror: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A target and what came of it."""

    measure: str
    limit: float
    value: float | None
    held: bool = field(default=False)


def measure(seen: Seen) -> dict[str, Any]:
    """Give the figures; seconds and milliseconds as their names say, None for what was not seen."""
    asked = [one for one in seen.requests if not one.mutable]
    good = sorted((one for one in asked if not one.error), key=lambda one: one.ended)
    bad = [one for one in asked if one.error]
    under = [one for one in asked if one.due >= seen.fault]
    latencies = sorted(1000 * (one.ended - one.due) for one in under if not one.error)
    gap, gap_at = _longest_gap(asked, good)
    return {
        "sent": len(asked),
        "failed": len(bad),
        "wrong_bytes": sum(one.wrong_bytes for one in seen.requests),
        "errors": dict(Counter(one.error for one in bad).most_common(10)),
        "longest_gap_seconds": _rounded(gap),
        "longest_gap_after_fault_seconds": _rounded(gap_at - seen.fault),
        "p50_ms": percentile(latencies, 0.50),
        "p99_ms": percentile(latencies, 0.99),
        "max_ms": percentile(latencies, 1.0),
        "needed_backend_percent": _percent(
            [one.cache not in _CACHED for one in good if one.due >= seen.fault]
        ),
        "served_percent": _percent([not one.error for one in under if _is_file(one)]),
        "stale_percent": _percent([bool(one.stale) for one in seen.requests if one.mutable]),
        "first_answer_seconds": _first_answer(good, seen),
        "detection_seconds": _detection(seen),
        "switch_over_seconds": _rounded(switch_over(asked, good, seen)),
        "recovery_seconds": _recovery(seen),
        "fault_seconds": _rounded(seen.undone - seen.fault),
        "builds": len(seen.builds),
        "failed_builds": sum(not one.ok for one in seen.builds) if seen.builds else None,
        "failed_builds_said": [one.said for one in seen.builds if not one.ok][:3],
        "failures": _failures(seen),
    }


def switch_over(asked: Sequence[Request], good: Sequence[Request], seen: Seen) -> float:
    """Give the seconds from the fault until requests were answered again; 0.0: nobody noticed.

    That is the longest time without an answer while the fault was on, from the fault on, or until
    the first answer after the last failure, whichever is longer. ``good`` is ordered by its end.
    """
    ends = [one.ended for one in good]
    pauses = [
        after - max(before, seen.fault)
        for before, after in itertools.pairwise(ends)
        if after > seen.fault and before < seen.undone
    ]
    failed = [one.due for one in asked if one.error and seen.fault <= one.due <= seen.undone]
    again = 0.0
    if failed:
        answered = [one.ended for one in good if one.due > max(failed)]
        again = (min(answered) if answered else seen.undone) - seen.fault
    longest = max(pauses, default=seen.undone - seen.fault)
    # Shorter than a few requests are apart: that is no interruption.
    if not failed and longest < 5 * _interval(asked):
        return 0.0
    return max(again, longest)


def is_whole(looks: Mapping[str, Look], *, up: frozenset[str], vip: bool) -> bool:
    """Whether every edge answers and asks all of ``up``, and one has the VIP where there is one."""
    return all(
        look.answers and look.published and up <= look.up for look in looks.values()
    ) and sum(look.vip for look in looks.values()) == int(vip)


def judge(figures: Mapping[str, Any], target: Mapping[str, float]) -> list[Check]:
    """Compare with a target: at most, for what ends in "percent" at least.

    What was not seen holds no target, but for builds where no client can build.
    """
    checks = []
    for name, limit in target.items():
        value = figures[name]
        if name == "failed_builds" and not figures["builds"]:
            continue
        if value is None:
            held = False
        else:
            held = value >= limit if name.endswith("percent") else value <= limit
        checks.append(Check(measure=name, limit=limit, value=value, held=held))
    return checks


def _failures(seen: Seen) -> list[dict[str, Any]]:
    """Give the requests that failed, and lists without the label stale: when, which and why."""
    bad = [one for one in seen.requests if one.error or (one.mutable and not one.stale)]
    return [
        {
            "after_fault_seconds": _rounded(one.due - seen.fault),
            "lasted_seconds": _rounded(one.ended - one.due),
            "url": one.url,
            "why": one.error or "not labelled stale",
            "cache": one.cache,
            "backend": one.backend,
            "source": one.source,
        }
        for one in sorted(bad, key=lambda one: one.due)[:_FAILURES_KEPT]
    ]


def _is_file(one: Request) -> bool:
    return "/@v/" in one.url


def _longest_gap(asked: Sequence[Request], good: Sequence[Request]) -> tuple[float, float]:
    """Give the longest time without an answer, and when it began: the load's ends count too."""
    if not asked:
        return 0.0, 0.0
    first, last = min(one.due for one in asked), max(one.due for one in asked)
    ends = [first, *(one.ended for one in good)]
    ends.append(max(ends[-1], last))
    return max((after - before, before) for before, after in itertools.pairwise(ends))


def _first_answer(good: Sequence[Request], seen: Seen) -> float | None:
    """Give the seconds from the fault to the first answer that another mirror gave."""
    if not seen.mirror:
        return None
    for one in good:
        if one.due >= seen.fault and one.source not in ("", "store", seen.mirror):
            return _rounded(one.ended - seen.fault)
    return None


def _detection(seen: Seen) -> float | None:
    """Give the seconds until every other edge had the victims out of its pool, or took the VIP."""
    edges = {look.edge for look in seen.looks}
    taken = [
        look.time
        for look in seen.looks
        if look.vip and look.time > seen.fault and look.edge not in seen.victims
    ]
    if edges & seen.victims:
        return _rounded(min(taken) - seen.fault) if taken else None
    out = []
    for edge in edges:
        times = [
            look.time
            for look in seen.looks
            if look.edge == edge
            and look.time > seen.fault
            and look.published
            and not seen.victims & look.asked
        ]
        out.append(min(times, default=None))
    if not seen.victims or not out or None in out:
        return None
    return _rounded(max(time for time in out if time is not None) - seen.fault)


def _recovery(seen: Seen) -> float | None:
    """Give the seconds from the end of the fault until all was well; 0: it was before."""
    if seen.whole is None:
        return None
    return _rounded(max(0.0, seen.whole - (seen.undone if seen.lasts else seen.fault)))


def _interval(asked: Sequence[Request]) -> float:
    if len(asked) < 2:
        return 0.0
    return (max(one.due for one in asked) - min(one.due for one in asked)) / (len(asked) - 1)


def _percent(held: Sequence[bool]) -> float | None:
    # Rounded down: 99.99 is not all of them.
    return int(1000 * sum(held) / len(held)) / 10 if held else None


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
