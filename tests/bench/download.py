"""A cold build: ``go mod download`` of many versions by way of a backend, and without one."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.bench.figures import Report, Target, median_ratio, spread
from tests.bench.gomirror import go_mod_download, mirror
from tests.bench.loopback import Site
from tests.bench.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.gomirror import Mirror
    from tests.bench.options import Options

_ROUND_TRIPS_MS = (0, 20)
_DIRECT, _BACKEND = "the mirror itself", "a backend before it"


def download(options: Options) -> Iterator[Report]:
    """Measure wall time, with nothing cached on either side, both sides in every round."""
    with mirror() as server:
        versions = server.versions(options.scratch / "download-listing")
        for trip in _ROUND_TRIPS_MS:
            yield _compare(options, server, versions, trip)


def _compare(options: Options, server: Mirror, versions: list[str], trip: int) -> Report:
    seconds: dict[str, list[float]] = {_DIRECT: [], _BACKEND: []}
    with ExitStack() as stack:
        root = server.root
        if trip:
            relay = stack.enter_context(Relay(server.port, delay_seconds=trip / 1000))
            root = f"http://127.0.0.1:{relay.port}/mod"
        folder = options.scratch / f"download-{trip}"
        site = stack.enter_context(Site(folder, options.tools, root))
        for number in range(options.rounds):
            options.say(f"download: round {number + 1} of {options.rounds}, {trip} ms away")
            site.empty()
            sides = [(_DIRECT, root), (_BACKEND, site.url)]
            for side, goproxy in sides if number % 2 else reversed(sides):
                home = folder / f"client-{number}-{side.replace(' ', '-')}"
                seconds[side].append(_download(home, goproxy, versions))
            marks = site.store / "unverified"
            assert not any(path.is_file() for path in marks.rglob("*")), "not all was verified"
    ratio = median_ratio(seconds[_BACKEND], seconds[_DIRECT])
    away = f"a mirror {trip} ms away" if trip else "a mirror on the same machine"
    return Report(
        title=f"Cold go mod download of {len(versions)} versions, {away} ({options.rounds} rounds)",
        columns=("GOPROXY", "seconds", "ratio"),
        rows=[
            [_DIRECT, spread(seconds[_DIRECT], 2), "1"],
            [_BACKEND, spread(seconds[_BACKEND], 2), f"{ratio:.2f}"],
        ],
        targets=[Target(what=f"wall time, {away}", value=ratio, limit=1.3)],
        raw=seconds,
    )


def _download(home: Path, goproxy: str, versions: list[str]) -> float:
    started = time.monotonic()
    done = go_mod_download(home, goproxy, *versions)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr.decode()
    return seconds
