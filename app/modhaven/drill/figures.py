"""From what was seen to figures, and from figures to whether the targets were held. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modhaven.drill.load import percentile
from modhaven.drill.outages import is_file, longest_gap, switch_over

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Answers of an edge for which it asked no backend.
_CACHED = ("HIT", "STALE", "UPDATING")
# So many requests of a scenario that failed are told one by one.
_FAILURES_KEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of the load; moments in seconds since the epoch, on the controller's clock.

    ``mutable`` is a list or @latest, whose bytes may change; ``client`` is who asked.
    """

    due: float
    ended: float
    url: str
    client: str = ""
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

    ``boot`` tells one start of the edge from another; ``can_take_vip``: nobody keeps the VIP away.
    """

    edge: str
    time: float
    boot: str = ""
    vip: bool
    can_take_vip: bool = False
    answers: bool
    published: bool
    asked: frozenset[str]
    up: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that was seen of one scenario. The fault was on from ``fault`` to ``undone``.

    One that does not last, as a kill, is over at once: what follows is recovery. ``lost_edges`` is
    who was hit because it has the VIP, ``lost_backends`` who was hit as a backend, ``cut`` the
    edges that could see nothing meanwhile.
    """

    requests: Sequence[Request]
    builds: Sequence[Build]
    looks: Sequence[Look]
    fault: float
    undone: float
    whole: float | None
    lasts: bool = True
    lost_edges: frozenset[str] = frozenset()
    lost_backends: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()
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
    gap, gap_at = longest_gap(asked) or (None, seen.fault)
    return {
        "sent": len(asked),
        "failed": len(bad),
        "wrong_bytes": sum(one.wrong_bytes for one in seen.requests),
        "errors": dict(Counter(one.error for one in bad).most_common(10)),
        "longest_gap_seconds": None if gap is None else _rounded(gap),
        "longest_gap_after_fault_seconds": None if gap is None else _rounded(gap_at - seen.fault),
        "p50_ms": percentile(latencies, 0.50),
        "p99_ms": percentile(latencies, 0.99),
        "max_ms": percentile(latencies, 1.0),
        "needed_backend_percent": _percent(
            [one.cache not in _CACHED for one in good if one.due >= seen.fault]
        ),
        "served_percent": _percent([not one.error for one in under if is_file(one.url)]),
        "stale_percent": _percent([bool(one.stale) for one in seen.requests if one.mutable]),
        "first_answer_seconds": _first_answer(good, seen),
        "detection_seconds": _detection(seen),
        "switch_over_seconds": _rounded(switch_over(asked, seen.fault)),
        "recovery_seconds": _recovery(seen),
        "fault_seconds": _rounded(seen.undone - seen.fault),
        "builds": len(seen.builds),
        "failed_builds": sum(not one.ok for one in seen.builds) if seen.builds else None,
        "failed_builds_said": [one.said for one in seen.builds if not one.ok][:3],
        "failures": _failures(seen),
    }


def is_whole(looks: Mapping[str, Look], *, up: frozenset[str], vip: bool) -> bool:
    """Whether every edge answers and asks all of ``up``, and one has the VIP where there is one."""
    return all(
        look.answers and look.published and up <= look.up for look in looks.values()
    ) and sum(look.vip for look in looks.values()) == int(vip)


def has_successor(looks: Mapping[str, Look]) -> bool:
    """Whether an edge that has not the VIP can take it."""
    return any(look.answers and look.can_take_vip and not look.vip for look in looks.values())


def judge(figures: Mapping[str, Any], target: Mapping[str, float]) -> list[Check]:
    """Compare with a target: at most, for what ends in "percent" at least.

    What was not seen holds no target, but for builds where no client can build; nor does anything
    where nobody asked.
    """
    checks = []
    for name, limit in target.items():
        value = figures[name]
        if name == "failed_builds" and not figures["builds"]:
            continue
        if value is None or not figures["sent"]:
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


def _first_answer(good: Sequence[Request], seen: Seen) -> float | None:
    """Give the seconds from the fault to the first answer that another mirror gave."""
    if not seen.mirror:
        return None
    for one in good:
        if one.due >= seen.fault and one.source not in ("", "store", seen.mirror):
            return _rounded(one.ended - seen.fault)
    return None


def _detection(seen: Seen) -> float | None:
    """Give the seconds until another edge took the VIP, or every edge had lost backends out."""
    if seen.lost_edges:
        taken = [
            look.time
            for look in seen.looks
            if look.vip and look.time > seen.fault and look.edge not in seen.lost_edges
        ]
        return _rounded(min(taken) - seen.fault) if taken else None
    if not seen.lost_backends:
        return None
    out: dict[str, float] = {}
    for look in seen.looks:
        if look.time > seen.fault and look.published and not seen.lost_backends & look.asked:
            out[look.edge] = min(look.time, out.get(look.edge, look.time))
    edges = {look.edge for look in seen.looks} - seen.cut
    if not edges or edges - set(out):
        return None
    return _rounded(max(out[edge] for edge in edges) - seen.fault)


def _recovery(seen: Seen) -> float | None:
    """Give the seconds from the end of the fault until all was well; 0: it was before."""
    if seen.whole is None:
        return None
    return _rounded(max(0.0, seen.whole - (seen.undone if seen.lasts else seen.fault)))


def _percent(held: Sequence[bool]) -> float | None:
    # Rounded down: 99.99 is not all of them.
    return int(1000 * sum(held) / len(held)) / 10 if held else None


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
