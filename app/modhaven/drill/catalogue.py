"""What is broken, where, and what users may notice: the scenarios and their targets, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# At most, but for those that end in "percent": at least. The inventory's drill_targets outranks
# single values.
TARGETS: dict[str, dict[str, float]] = {
    "backend": {"failed": 0, "longest_gap_seconds": 0.3, "wrong_bytes": 0},
    "backend_hung": {"failed": 0, "detection_seconds": 3, "wrong_bytes": 0},
    "disk_full": {"failed": 0, "detection_seconds": 5, "wrong_bytes": 0},
    "backends_lost": {"failed": 0, "wrong_bytes": 0},
    "edge": {"switch_over_seconds": 0.7, "failed_builds": 0, "wrong_bytes": 0},
    "planned": {"failed": 0, "longest_gap_seconds": 0.3, "wrong_bytes": 0},
    # Where no other edge took the VIP, nothing was tried.
    "edge_planned": {
        "failed": 0, "longest_gap_seconds": 0.3, "detection_seconds": 3, "wrong_bytes": 0,
    },
    "mirror": {"failed_builds": 0, "first_answer_seconds": 2, "wrong_bytes": 0},
    # What each costs alone: half a second at a hung backend, then the mirror's.
    "mirror_and_backend": {"failed_builds": 0, "first_answer_seconds": 2.5, "wrong_bytes": 0},
    "mirrors_lost": {"served_percent": 100, "stale_percent": 100, "wrong_bytes": 0},
}  # fmt: skip
MEASURES = sorted({measure for target in TARGETS.values() for measure in target})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: ``kind`` is a key of faults.HOST_FAULTS, or what the inventory's helper knows.

    ``on`` is whom it hits: ``primary`` (one backend that is no backup), ``primaries``,
    ``vip_master``, ``edges``, ``backends``, ``mirror`` (the first of the chain), or ``mirrors``.
    """

    kind: str
    on: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One thing that goes wrong, or is done to a live cluster.

    ``faults`` are on together for ``seconds``; ``playbook`` runs instead of a wait. A helper makes
    ``files`` ready: ``uncached`` are in no edge's cache, so that each needs a backend; ``cold`` in
    no store either, so that each needs a mirror; ``known`` in the stores, and in no edge's cache.
    ``safe``: may be run on production without being named. ``needs`` names what the inventory must
    have, see ``_NEEDS``.
    """

    name: str
    title: str
    target: str
    faults: tuple[Fault, ...] = ()
    playbook: str = ""
    files: str = "uncached"
    seconds: float = 8
    safe: bool = False
    needs: tuple[str, ...] = ()


def _mirror(name: str, title: str, kind: str = "mirror", **options: object) -> Scenario:
    return Scenario(
        name=name,
        title=title,
        target="mirror",
        faults=(Fault(kind=kind, on="mirror", options=options),),
        files="cold",
        needs=("helper",),
    )


SCENARIOS = (
    Scenario(
        name="backend_killed",
        title="every process of a backend is killed (SIGKILL)",
        target="backend",
        faults=(Fault(kind="kill", on="primary"),),
        safe=True,
        needs=("primaries",),
    ),
    Scenario(
        name="backend_hung",
        title="a backend hangs: connections are accepted, nobody answers (SIGSTOP)",
        target="backend_hung",
        faults=(Fault(kind="hang", on="primary"),),
        safe=True,
        needs=("primaries",),
    ),
    Scenario(
        name="backend_host_stopped",
        title="a backend's host loses its power",
        target="backend",
        faults=(Fault(kind="host_stopped", on="primary"),),
        needs=("primaries", "helper"),
    ),
    Scenario(
        name="backend_disk_full",
        title="a backend's disk is full",
        target="disk_full",
        faults=(Fault(kind="full_disk", on="primary"),),
        files="cold",
        needs=("primaries",),
    ),
    Scenario(
        name="primaries_lost",
        title="every backend that is no backup is stopped",
        target="backends_lost",
        faults=(Fault(kind="stop", on="primaries"),),
        needs=("backup",),
    ),
    Scenario(
        name="edge_killed",
        title="the nginx of the edge that has the VIP is killed (SIGKILL)",
        target="edge",
        faults=(Fault(kind="kill", on="vip_master"),),
        needs=("vip",),
    ),
    Scenario(
        name="edge_network_cut",
        title="the edge that has the VIP loses its network",
        target="edge",
        faults=(Fault(kind="link_down", on="vip_master"),),
        needs=("vip", "helper"),
    ),
    Scenario(
        name="edge_stopped",
        title="the edge that has the VIP is told to give it away, and stopped",
        target="edge_planned",
        faults=(Fault(kind="leave", on="vip_master"),),
        safe=True,
        needs=("vip",),
    ),
    Scenario(
        name="edge_rebooted",
        title="the edge that has the VIP is rebooted",
        target="edge",
        faults=(Fault(kind="reboot", on="vip_master"),),
        seconds=2,
        needs=("vip",),
    ),
    _mirror("mirror_refused", "the first mirror refuses connections", fault="down"),
    _mirror("mirror_black_hole", "the first mirror takes connections and never answers",
            fault="blackhole"),
    _mirror("mirror_slow", "the first mirror answers three seconds late", fault="delay", seconds=3),
    _mirror("mirror_errors", "the first mirror answers 500", fault="status", code=500),
    _mirror("mirror_wrong_bytes", "the first mirror gives wrong .mod files and zips",
            fault="wrong_bytes", match=r"\.(zip|mod)$"),
    _mirror("mirror_wrong_dns", "the first mirror's name leads to an address that nobody has",
            kind="wrong_dns"),
    Scenario(
        name="mirrors_lost",
        title="every mirror and the checksum database refuse connections",
        target="mirrors_lost",
        faults=(Fault(kind="every_mirror", on="mirrors"),),
        files="known",
        needs=("helper",),
    ),
    Scenario(
        name="reload_storm",
        title="nginx is reloaded twenty times on every edge, twice a second",
        target="planned",
        faults=(Fault(kind="reload", on="edges"),),
        seconds=0,
        safe=True,
    ),
    Scenario(
        name="edge_and_backend",
        title="two at once: the edge that has the VIP loses its network, and a backend is killed",
        target="edge",
        faults=(Fault(kind="link_down", on="vip_master"), Fault(kind="kill", on="primary")),
        needs=("vip", "primaries", "helper"),
    ),
    Scenario(
        name="backend_and_mirror",
        title="two at once: a backend hangs, and the first mirror never answers",
        target="mirror_and_backend",
        faults=(
            Fault(kind="hang", on="primary"),
            Fault(kind="mirror", on="mirror", options={"fault": "blackhole"}),
        ),
        files="cold",
        needs=("primaries", "helper"),
    ),
    Scenario(
        name="rollback",
        title="the release before is put back, one backend at a time (rollback.yml)",
        target="planned",
        playbook="playbooks/rollback.yml",
    ),
    Scenario(
        name="rolling_update",
        title="the present release is rolled out again, one node at a time (update.yml)",
        target="planned",
        playbook="playbooks/update.yml",
    ),
)  # fmt: skip


def by_name(name: str) -> Scenario:
    """Give a scenario; raises ValueError that lists them all."""
    for scenario in SCENARIOS:
        if scenario.name == name:
            return scenario
    known = ", ".join(scenario.name for scenario in SCENARIOS)
    raise ValueError(f"drill_scenarios names {name!r}; the scenarios are {known}")


def choose(
    names: Iterable[str], *, lab: bool, has: Iterable[str]
) -> tuple[list[Scenario], dict[str, str]]:
    """Give the scenarios to run, in the catalogue's order, and why each other one is left out.

    ``names`` empty: all in the lab, elsewhere the safe ones. ``has`` is what the inventory offers
    (see Scenario.needs). Raises ValueError for an unknown name and for a named one that cannot run.
    """
    named = {by_name(name).name for name in names}
    offered = set(has)
    chosen, left = [], {}
    for scenario in SCENARIOS:
        missing = [_NEEDS[need] for need in scenario.needs if need not in offered]
        if named and scenario.name not in named:
            left[scenario.name] = "not asked for"
        elif missing:
            left[scenario.name] = f"this inventory has no {' and no '.join(missing)}"
            if scenario.name in named:
                raise ValueError(f"{scenario.name} cannot be run: {left[scenario.name]}")
        elif not named and not lab and not scenario.safe:
            left[scenario.name] = "not safe in production: name it in drill_scenarios to run it"
        else:
            chosen.append(scenario)
    return chosen, left


_NEEDS = {
    "helper": "program that makes such faults (drill_helper)",
    "vip": "VIP with two edges",
    "backup": "backup among the backends",
    "primaries": "second backend beside a primary",
}


def rows() -> list[tuple[str, ...]]:
    """Give the catalogue for people, the first row its heads."""
    found: list[tuple[str, ...]] = [("scenario", "production", "target", "what is broken")]
    for one in SCENARIOS:
        where = "safe" if one.safe else "helper only" if "helper" in one.needs else "when named"
        found.append((one.name, where, one.target, one.title))
    return found
