"""The first mirror turns into a black hole: what the first request pays, and later ones."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.bench.figures import Report, Target, median, spread
from tests.bench.gomirror import mirror
from tests.bench.loopback import Site
from tests.bench.relay import Relay

if TYPE_CHECKING:
    from tests.bench.options import Options

_HEALTHY, _LATER = 20, 50


def black_hole(options: Options) -> list[Report]:
    """Ask one after the other for .mod files the backend does not hold; new ones in every round."""
    first: list[float] = []
    healthy: list[float] = []
    later: list[float] = []
    with (
        mirror() as server,
        Relay(server.port) as primary,
        Site(
            options.scratch / "black-hole",
            options.tools,
            f"http://127.0.0.1:{primary.port}/mod|{server.root}",
        ) as site,
    ):
        versions = server.versions(options.scratch / "black-hole-listing")
        paths = [_path(version) for version in versions[: _HEALTHY + 1 + _LATER]]
        sources = [f"127.0.0.1:{primary.port}", f"127.0.0.1:{server.port}"]
        for number in range(options.rounds):
            options.say(f"black hole: round {number + 1} of {options.rounds}")
            primary.go_dark(dark=False)
            site.empty()
            ahead, behind = paths[:_HEALTHY], paths[_HEALTHY:]
            healthy += [_ask(site, path, sources[0]) for path in ahead]
            primary.go_dark()
            first.append(_ask(site, behind[0], sources[1]))
            later += [_ask(site, path, sources[1]) for path in behind[1:]]
    rows = [
        ["before, each", f"{len(healthy)}", spread(healthy)],
        ["the first after it", f"{len(first)}", spread(first)],
        [f"the {_LATER} after that, each", f"{len(later)}", spread(later)],
    ]
    return [
        Report(
            title=f"The first of two mirrors turns into a black hole ({options.rounds} rounds)",
            columns=("requests for a cold .mod", "measured", "milliseconds"),
            rows=rows,
            targets=[
                Target(what="the slowest first request", value=max(first), limit=2000, unit=" ms"),
                Target(
                    what="a later request, to one before (medians)",
                    value=median(later) / median(healthy),
                    limit=1.5,
                ),
            ],
            raw={"healthy": healthy, "first": first, "later": later},
        )
    ]


def _path(version: str) -> str:
    module, _, number = version.partition("@")
    return f"{module}/@v/{number}.mod"


def _ask(site: Site, path: str, source: str) -> float:
    """Return the milliseconds that a cold file from ``source`` took."""
    started = time.monotonic()
    answer = site.get(path)
    milliseconds = (time.monotonic() - started) * 1000
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Modhaven-Source"] == source, answer.headers
    return milliseconds
