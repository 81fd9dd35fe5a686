"""A drill for people: a line while it runs, a table at its end, and two files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from modhaven.drill import catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_WORDS = {
    "failed": "failed requests",
    "longest_gap_seconds": "longest gap",
    "wrong_bytes": "wrong bytes",
    "detection_seconds": "detection",
    "switch_over_seconds": "switch-over",
    "first_answer_seconds": "first answer",
    "failed_builds": "failed builds",
    "served_percent": "known files served",
    "stale_percent": "lists and @latest labelled stale",
}


_LEGEND = """\
Seconds where nothing else is said; p50 and p99 in milliseconds, from the fault on.

- *Detection*: until the other nodes had taken the broken one out (-: they had no need to).
- *Switch-over*: the longest outage from the fault on, until requests were answered again (none: no
  pause that users could notice).
- *First answer*: until the first one that another mirror gave.
- *Recovery*: from the end of the fault (of a kill: from the kill) until the cluster was whole.
- *Gap*: the longest time without a good answer in the whole scenario, from when a request was due,
  to what one client asks of one kind (/readyz, files).

Every body was compared with its known SHA-256. The JSON beside this tells each request that failed
(`failures`): when, for how long, which, and why.
"""


def line(result: Mapping[str, Any]) -> str:
    """Give a scenario's figures in one line, and what was missed."""
    if result["outcome"] in ("not run", "failed"):
        return f"{result['outcome'].upper()}  {result['why']}"
    found = result["figures"]
    words = [
        f"detection {_seconds(found['detection_seconds'])}",
        f"switch-over {_switch_over(found)}",
        f"recovery {_seconds(found['recovery_seconds'])}",
        f"{found['sent']} requests, {found['failed']} failed, {found['wrong_bytes']} wrong bytes",
        f"longest gap {_seconds(found['longest_gap_seconds'])}",
        f"p50 {_milliseconds(found['p50_ms'])} ms, p99 {_milliseconds(found['p99_ms'])} ms",
        f"{found['builds']} builds, {found['failed_builds'] or 0} failed",
    ]
    if found["first_answer_seconds"] is not None:
        words.insert(3, f"first answer {_seconds(found['first_answer_seconds'])}")
    missed = [_said(check) for check in result["checks"] if not check["held"]]
    verdict = "HELD" if not missed else f"MISSED ({'; '.join(missed)})"
    return f"{verdict}  {'; '.join(words)}"


def table(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Give the table's rows, the first one its heads."""
    rows: list[tuple[str, ...]] = [
        (
            "scenario", "result", "detection", "switch-over", "first answer", "recovery", "sent",
            "failed", "gap", "p50", "p99", "wrong", "builds", "failed",
        )
    ]  # fmt: skip
    for result in results:
        if "figures" not in result:
            rows.append((result["name"], result["outcome"], *[""] * 12))
            continue
        found = result["figures"]
        rows.append(
            (
                result["name"], result["outcome"], _seconds(found["detection_seconds"]),
                _switch_over(found), _seconds(found["first_answer_seconds"]),
                _seconds(found["recovery_seconds"]), str(found["sent"]),
                str(found["failed"]), _seconds(found["longest_gap_seconds"]),
                _milliseconds(found["p50_ms"]), _milliseconds(found["p99_ms"]),
                str(found["wrong_bytes"]), str(found["builds"]), str(found["failed_builds"] or 0),
            )
        )  # fmt: skip
    return rows


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Set rows in columns for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def write(folder: Path, name: str, drill: Mapping[str, Any]) -> list[Path]:
    """Write both files, and give their paths. OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.json", folder / f"{name}.md"]
    paths[0].write_text(json.dumps(drill, indent=1) + "\n", encoding="utf-8")
    paths[1].write_text(markdown(drill), encoding="utf-8")
    return paths


def markdown(drill: Mapping[str, Any]) -> str:
    """Give the report for people: what was broken, what users saw, against which targets."""
    results = drill["results"]
    ran = [one for one in results if one["outcome"] != "not run"]
    held = [one for one in ran if one["outcome"] == "held"]
    parts = [
        "# Failover drill\n",
        f"**{len(held)} of {len(ran)} scenarios held their targets.** {_verdict(drill)}".rstrip()
        + "\n",
        "## What was broken, and what users saw\n",
        *(_paragraph(one) for one in ran),
        "## Figures\n",
        _markdown_table(table(ran)),
        _LEGEND,
        "## Targets\n",
        _markdown_table(_targets(drill["targets"])),
        "## Environment\n",
        *_environment(drill["environment"]),
    ]
    left: dict[str, list[str]] = {}
    for one in results:
        if one["outcome"] == "not run":
            left.setdefault(one["why"], []).append(one["name"])
    if left:
        lines = [f"- {why}: {', '.join(names)}" for why, names in left.items()]
        parts += ["## What was not run\n", "\n".join(lines) + "\n"]
    return "\n".join(parts)


def undone(still_broken: Sequence[str]) -> str:
    """Give in a sentence whether everything that a drill broke is undone."""
    if still_broken:
        return f"Not known to be undone: {'; '.join(still_broken)}."
    return "What it had broken is undone."


def _verdict(drill: Mapping[str, Any]) -> str:
    if drill["stopped"]:
        return (
            f"The drill was stopped before its end ({drill['stopped']})."
            f" {undone(drill['still_broken'])}"
        )
    missed = [one["name"] for one in drill["results"] if one["outcome"] == "missed"]
    failed = [one["name"] for one in drill["results"] if one["outcome"] == "failed"]
    told = [f"Missed: {', '.join(missed)}."] if missed else []
    told += [f"Could not be run: {', '.join(failed)}."] if failed else []
    return " ".join(told)


def _paragraph(one: Mapping[str, Any]) -> str:
    where = f" ({', '.join(one['victims'])})" if one.get("victims") else ""
    head = f"- **{one['name']}**: {one['title']}{where}."
    if one["outcome"] == "failed":
        return f"{head} **Could not be run**: {one['why']}.\n"
    found = one["figures"]
    users = (
        f"{found['failed']} of {found['sent']} requests failed"
        if found["failed"]
        else f"None of {found['sent']} requests failed"
    )
    if found["builds"]:
        users += f", {found['failed_builds'] or 'none'} of {found['builds']} builds"
    users += f"; the longest gap was {_seconds(found['longest_gap_seconds'])} s"
    if found["stale_percent"] is not None:
        users += (
            f"; {_percent(found['served_percent'])} of known files were served,"
            f" {_percent(found['stale_percent'])} of lists labelled stale"
        )
    if found["first_answer_seconds"] is not None:
        users += f"; another mirror's first answer came after {found['first_answer_seconds']} s"
    if "playbook" in one:
        users += f"; it took {found['fault_seconds']:.0f} s"
    users += f". {_percent(found['needed_backend_percent'])} of the answers needed a backend."
    missed = [_said(check) for check in one["checks"] if not check["held"]]
    return f"{head} {users}" + (f" **Missed:** {'; '.join(missed)}." if missed else "") + "\n"


def _said(check: Mapping[str, Any]) -> str:
    kind = "at least" if check["measure"].endswith("percent") else "at most"
    value = "not seen" if check["value"] is None else f"{check['value']:g}"
    return f"{_WORDS[check['measure']]} {value}, target {kind} {check['limit']:g}"


def _targets(targets: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("target", "scenarios", "what it asks")]
    for kind, values in targets.items():
        names = [one.name for one in catalogue.SCENARIOS if one.target == kind]
        asks = [
            f"{_WORDS[name]} {'≥' if name.endswith('percent') else '≤'} {limit:g}"
            for name, limit in values.items()
        ]
        rows.append((kind, ", ".join(names), ", ".join(asks)))
    return rows


def _environment(told: Mapping[str, Any]) -> list[str]:
    lines = [f"- {name}: {value}" for name, value in told.items() if name != "hosts"]
    for host, seen in told["hosts"].items():
        lines.append(f"- {host}: " + ", ".join(f"{name} {value}" for name, value in seen.items()))
    return ["\n".join(lines) + "\n"]


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _switch_over(found: Mapping[str, Any]) -> str:
    return "none" if found["switch_over_seconds"] == 0 else _seconds(found["switch_over_seconds"])


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:g} %"
