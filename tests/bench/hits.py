"""Hits: what the backend's disk path and the edge's cache add to nginx serving a plain file."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from tests.bench import modules
from tests.bench.figures import Report, Target, WrkRun, median, median_ratio, parse_wrk, spread
from tests.bench.loopback import Site
from tests.bench.other import FILES_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.options import Options
    from tests.bench.other import Other

PLAIN, BACKEND, EDGE = "plain file", "backend, from its store", "edge, from its cache"
PLAIN_TLS, EDGE_TLS = "plain file, TLS", "edge, from its cache, TLS"
# Side, what it is compared with, and the least ratio for the small file and for the zip.
_COMPARED: dict[str, tuple[str, tuple[float, float] | None]] = {
    BACKEND: (PLAIN, (0.95, 0.95)),
    EDGE: (PLAIN, (0.9, 0.95)),
    EDGE_TLS: (PLAIN_TLS, None),
}
_CROWD = 32
_WARM_SECONDS = 10
_WATCHED_SECONDS = 4


def hits(options: Options) -> Iterator[Report]:
    """Measure answers a second with wrk, all sides in turn, twice, in every round."""
    port = FILES_PORT if options.others else None
    with Site(options.scratch / "hits", options.tools, sumdbs=(), plain_port=port) as site:
        five = modules.make(site.files, "five", 5)
        paths = {f"/{five.base}.mod": 64, f"/{five.base}.zip": 8}
        left_out: dict[Other, str] = {}
        for path in paths:
            _warm(site, path)
            for other in options.others:
                if problem := other.warm(path, (site.files / path.lstrip("/")).read_bytes()):
                    left_out.setdefault(other, problem)
        others = {other.name: other.url for other in options.others if other not in left_out}
        sides = {
            PLAIN: site.plain, BACKEND: site.url, EDGE: site.edge,
            PLAIN_TLS: site.plain_tls, EDGE_TLS: site.edge_tls, **others,
        }  # fmt: skip
        _read_anew(site)
        for (path, connections), kind in zip(
            paths.items(), ("a small .mod", "a 5 MiB .zip"), strict=True
        ):
            runs: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
            urls = {side: base + path for side, base in sides.items()}
            for number in range(options.hit_rounds):
                options.say(f"hits of {kind}: round {number + 1} of {options.hit_rounds}")
                for side, measured in _round(site, urls, connections, options.seconds).items():
                    runs[side].append(measured)
            title = f"A hit: {kind}, {connections} connections, {options.hit_rounds} rounds"
            yield _report(title, kind, runs, strange=set(others), notes=list(left_out.values()))
        yield _withdrawn(site)
        yield _crowd(site)


def _warm(site: Site, path: str) -> None:
    """Let the product itself put the file where a hit comes from; AssertionError otherwise."""
    requests.get(site.url + path, timeout=60).raise_for_status()
    assert site.get(path.lstrip("/")).headers["X-Modhaven-Source"] == "store"
    end = time.monotonic() + _WARM_SECONDS
    # The edge may send the last octet before its cache has the file.
    status = ""
    while status != "HIT":
        assert time.monotonic() < end, f"the edge's cache does not keep {path}: {status}"
        answer = requests.get(site.edge + path, timeout=60)
        answer.raise_for_status()
        status = answer.headers["X-Modhaven-Cache"]


def _read_anew(site: Site) -> None:
    """Let go of our files' pages in memory, so that all our sides' are as reading makes them.

    Those that writing leaves depend on how it was written, and small ones take longer to send.
    """
    for folder in (site.store, site.folder / "cache"):
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _round(
    site: Site, urls: dict[str, str], connections: int, seconds: int
) -> dict[str, tuple[float, float]]:
    """Return each side's answers a second, and nginx's own CPU microseconds for each answer.

    Each is measured there and back: what slows the machine down bit by bit meets all of them.
    """
    runs: dict[str, list[tuple[WrkRun, float]]] = {side: [] for side in urls}
    for side in [*urls, *reversed(urls)]:
        before = _cpu_seconds(site)
        run = _wrk(site, urls[side], connections, seconds)
        runs[side].append((run, _cpu_seconds(site) - before))
    return {
        side: (
            statistics.fmean(run.rate for run, _ in both),
            sum(cpu for _, cpu in both) / sum(run.requests for run, _ in both) * 1e6,
        )
        for side, both in runs.items()
    }


def _wrk(site: Site, url: str, connections: int, seconds: int) -> WrkRun:
    done = subprocess.run(
        [site.tools.wrk, "--threads", "1", "--connections", str(connections),
         "--duration", f"{seconds}s", url],
        check=True, text=True, stdout=subprocess.PIPE, env=site.tools.libraries,
    )  # fmt: skip
    return parse_wrk(done.stdout)


def _cpu_seconds(site: Site) -> float:
    # The first figure is the time on a CPU in nanoseconds (kernel: sched-stats).
    stats = [Path(f"/proc/{pid}/schedstat").read_text() for pid in site.nginx_pids()]
    return sum(int(stat.split()[0]) for stat in stats) / 1e9


def _report(
    title: str,
    kind: str,
    runs: dict[str, list[tuple[float, float]]],
    *,
    strange: set[str],
    notes: list[str],
) -> Report:
    rates = {side: [rate for rate, _ in measured] for side, measured in runs.items()}
    costs = {side: [cost for _, cost in measured] for side, measured in runs.items()}
    rows, targets = [], []
    for side in runs:
        base, limits = _COMPARED.get(side, (PLAIN if side in strange else side, None))
        ratio = median_ratio(rates[side], rates[base])
        # What is measured is our nginx's time, and another server is not in it.
        cost = "-" if side in strange else f"{median(costs[side]):,.1f}"
        cost_ratio = "-" if side in strange else f"{median_ratio(costs[side], costs[base]):.2f}"
        rows.append([side, spread(rates[side]), cost, f"{ratio:.2f}", cost_ratio])
        if limits is not None:
            limit = limits[kind.endswith(".zip")]
            what = f"{kind}, {side}, to {base}"
            targets.append(Target(what=what, value=ratio, limit=limit, at_least=True))
    return Report(
        title=title,
        columns=("who serves", "answers a second", "nginx CPU µs each", "rate ratio", "CPU ratio"),
        rows=rows,
        targets=targets,
        notes=notes,
        raw={"rates": rates, "cpu_microseconds": costs},
    )


def _withdrawn(site: Site) -> Report:
    """Mark a file that is being served, then remove it: how long is it still served as before?"""
    made = modules.make(site.files, "withdrawn", 1)
    path, key = f"/{made.base}.zip", f"{made.base}.zip"
    mark, stored = site.store / "unverified" / key, site.store / "cache/download" / key
    requests.get(site.url + path, timeout=60).raise_for_status()
    # What nginx does not serve itself is 503 from now on; and nobody verifies and removes the mark.
    site.stop_app()
    seconds = {}
    _still_served(site, path, seconds=1)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    seconds["marked"] = _still_served(site, path, seconds=_WATCHED_SECONDS)
    mark.unlink()
    assert _still_served(site, path, seconds=2) > 0
    stored.unlink()
    seconds["withdrawn"] = _still_served(site, path, seconds=_WATCHED_SECONDS)
    site.start_app()
    what = "seconds for which a withdrawn file is served"
    return Report(
        title="A file that nginx serves is marked as unverified, or withdrawn",
        columns=("event", "served as before for, seconds"),
        rows=[[event, f"{value:.2f}"] for event, value in seconds.items()],
        targets=[
            Target(what="seconds for which a mark is not seen", value=seconds["marked"], limit=0.1),
            Target(what=what, value=seconds["withdrawn"], limit=3),
        ],
        raw={**seconds},
    )


def _still_served(site: Site, path: str, *, seconds: float) -> float:
    """Ask for ``seconds``; return after how many the file came from nginx for the last time."""
    began, last = time.monotonic(), 0.0
    while (now := time.monotonic() - began) < seconds:
        # On new connections, so that every worker of nginx is asked.
        answer = site.get(path.lstrip("/"), stream=True)
        answer.close()
        if answer.ok:
            last = now
    return last


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
