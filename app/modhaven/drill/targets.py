"""The targets with the inventory's own values in place, and what load can judge them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from modhaven.drill.catalogue import MEASURES, TARGETS
from modhaven.drill.outages import KINDS, REQUESTS_NOTICED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modhaven.drill.catalogue import Scenario

# What the load's rate must be high enough for.
_BY_RATE = ("longest_gap_seconds", "switch_over_seconds")


def read(overrides: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Give the targets with the inventory's own values in place.

    Raises ValueError for a class or a measure that there is not, and for a value that is no number
    of 0 or more.
    """
    if not isinstance(overrides, Mapping):
        raise ValueError(f"drill_targets is {overrides!r}; it must be CLASS: {{MEASURE: NUMBER}}")
    for kind, values in overrides.items():
        if kind not in TARGETS:
            raise ValueError(f"drill_targets has {kind!r}; there are {', '.join(TARGETS)}")
        if not isinstance(values, Mapping):
            raise ValueError(f"drill_targets.{kind} is {values!r}; it must be MEASURE: NUMBER")
        unknown = set(values) - set(MEASURES)
        if unknown:
            raise ValueError(
                f"drill_targets.{kind} has {min(unknown)!r}; there are {', '.join(MEASURES)}"
            )
        for measure, value in values.items():
            # A YAML true is an int to Python; NaN compares with nothing.
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
                raise ValueError(
                    f"drill_targets.{kind}.{measure} is {value!r}; it must be a number of 0 or more"
                )
    return {kind: {**own, **overrides.get(kind, {})} for kind, own in TARGETS.items()}


def check_rate(
    rate: float, chosen: Iterable[Scenario], targets: Mapping[str, Mapping[str, float]]
) -> None:
    """Raise ValueError for a client's rate (requests a second) too low for the scenarios' targets.

    A shorter outage than REQUESTS_NOTICED requests of a stream cannot be told from none.
    """
    shortest = REQUESTS_NOTICED * KINDS / rate
    for kind in dict.fromkeys(one.target for one in chosen):
        for measure in _BY_RATE:
            limit = targets[kind].get(measure, shortest)
            if limit < shortest:
                raise ValueError(
                    f"drill_rate is {rate:g} a second, at which nothing shorter than"
                    f" {shortest:.2g} s is noticed, and {measure} of the target {kind} is"
                    f" {limit:g}: make one of them higher"
                )
