"""Hits: what the backend's disk path and the edge's cache add to nginx serving a plain file."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from tests.bench import modules
from tests.bench.figures import Report, Target, WrkRun, median, median_ratio, parse_wrk, spread
from tests.bench.loopback import Site

if TYPE_CHECKING:
    from tests.bench.options import Options

PLAIN, BACKEND, EDGE = "plain file", "backend, from its store", "edge, from its cache"
PLAIN_TLS, EDGE_TLS = "plain file, TLS", "edge, from its cache, TLS"
# Side, what it is compared with, and the least ratio for the small file and for the zip.
_COMPARED: dict[str, tuple[str, tuple[float, float] | None]] = {
    BACKEND: (PLAIN, (0.95, 0.95)),
    EDGE: (PLAIN, (0.9, 0.95)),
    EDGE_TLS: (PLAIN_TLS, None),
}
_CROWD = 32


def hits(options: Options) -> list[Report]:
    """Measure answers a second with wrk, all sides one after the other in every round."""
    with Site(options.scratch / "hits", options.tools, sumdbs=()) as site:
        five = modules.make(site.files, "five", 5)
        sides = {
            PLAIN: site.plain, BACKEND: site.url, EDGE: site.edge,
            PLAIN_TLS: site.plain_tls, EDGE_TLS: site.edge_tls,
        }  # fmt: skip
        paths = {f"/{five.base}.mod": 64, f"/{five.base}.zip": 8}
        for path in paths:
            _warm(site, path)
        reports = []
        for (path, connections), kind in zip(
            paths.items(), ("a small .mod", "a 5 MiB .zip"), strict=True
        ):
            runs: dict[str, list[tuple[WrkRun, float]]] = {side: [] for side in sides}
            for number in range(options.rounds):
                in_turn = list(sides.items())
                for side, base in in_turn if number % 2 else reversed(in_turn):
                    options.say(f"hits of {kind}: round {number + 1} of {options.rounds}, {side}")
                    runs[side].append(_run(site, base + path, connections, options.seconds))
            reports.append(_report(kind, connections, runs, options))
        return [*reports, _crowd(site)]


def _warm(site: Site, path: str) -> None:
    """Let the product itself put the file where a hit comes from; AssertionError otherwise."""
    for base in (site.url, site.edge, site.edge):
        answer = requests.get(base + path, timeout=60)
        assert answer.status_code == 200, answer.text
    assert answer.headers["X-Modhaven-Cache"] == "HIT"
    assert site.get(path.lstrip("/")).headers["X-Modhaven-Source"] == "store"


def _run(site: Site, url: str, connections: int, seconds: int) -> tuple[WrkRun, float]:
    """Return what wrk counted, and nginx's own CPU microseconds for each answer."""
    before = _cpu_seconds(site)
    done = subprocess.run(
        [site.tools.wrk, "--threads", "1", "--connections", str(connections),
         "--duration", f"{seconds}s", url],
        check=True, text=True, stdout=subprocess.PIPE, env=site.tools.libraries,
    )  # fmt: skip
    run = parse_wrk(done.stdout)
    return run, (_cpu_seconds(site) - before) / run.requests * 1e6


def _cpu_seconds(site: Site) -> float:
    # The first figure is the time on a CPU in nanoseconds (kernel: sched-stats).
    stats = [Path(f"/proc/{pid}/schedstat").read_text() for pid in site.nginx_pids()]
    return sum(int(stat.split()[0]) for stat in stats) / 1e9


def _report(
    kind: str, connections: int, runs: dict[str, list[tuple[WrkRun, float]]], options: Options
) -> Report:
    rates = {side: [run.rate for run, _ in measured] for side, measured in runs.items()}
    costs = {side: [cost for _, cost in measured] for side, measured in runs.items()}
    rows, targets = [], []
    for side in runs:
        row = [side, spread(rates[side]), f"{median(costs[side]):,.1f}"]
        other, limits = _COMPARED.get(side, (side, None))
        ratio = median_ratio(rates[side], rates[other])
        rows.append([*row, f"{ratio:.2f}", f"{median_ratio(costs[side], costs[other]):.2f}"])
        if limits is not None:
            limit = limits[kind.endswith(".zip")]
            what = f"{kind}, {side}, to {other}"
            targets.append(Target(what=what, value=ratio, limit=limit, at_least=True))
    return Report(
        title=f"A hit: {kind}, {connections} connections, {options.rounds} rounds",
        columns=("who serves", "answers a second", "nginx CPU µs each", "rate ratio", "CPU ratio"),
        rows=rows,
        targets=targets,
        raw={"rates": rates, "cpu_microseconds": costs},
    )


def _crowd(site: Site) -> Report:
    """Ask the edge for one cold zip many times at once, and count who asked whom."""
    made = modules.make(site.files, "crowd", 20)
    path = f"/{made.base}.zip"

    def ask(_: int) -> int:
        return len(requests.get(site.edge + path, timeout=120).content)

    with ThreadPoolExecutor(_CROWD) as pool:
        sizes = list(pool.map(ask, range(_CROWD)))
    assert sizes == [made.zip_bytes] * _CROWD
    logs = site.folder / "var/log/nginx"
    backend = (logs / "modhaven-backend.log").read_text().count(f'"path":"{path}"')
    upstream = (logs / "plain.log").read_text().count(f'"path":"/files{path}"')
    return Report(
        title=f"{_CROWD} requests at once for one cold zip of 20 MiB",
        columns=("who was asked", "requests"),
        rows=[["edge", str(_CROWD)], ["backend", str(backend)], ["upstream", str(upstream)]],
        targets=[Target(what="upstream fetches of an edge", value=upstream, limit=1)],
        raw={"backend": backend, "upstream": upstream},
    )
