"""A cold build: ``go mod download`` of many versions by way of a backend, and without one."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.bench.figures import Report, Target, median_ratio, spread
from tests.bench.gomirror import go_mod_download, mirror
from tests.bench.loopback import Site
from tests.bench.other import MIRROR_PORT
from tests.bench.passing import passing_on
from tests.bench.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.gomirror import Mirror
    from tests.bench.options import Options

_ROUND_TRIPS_MS = (0, 2, 5, 20)
_DIRECT, _BACKEND = "the mirror itself", "a backend before it"
# What the least of all proxies costs, which keeps nothing and verifies nothing.
_NGINX = "nginx before it, which only passes on"
_PYTHON = "gunicorn and urllib3 before it, which only pass on"
_AGAIN = "a backend that holds all"
_clients = itertools.count()


class DownloadError(SystemExit):
    """A download that is to be measured has failed; the message has what the go command said."""


def download(options: Options) -> Iterator[Report]:
    """Measure wall time, with nothing cached on either side, both sides in every round."""
    with mirror(MIRROR_PORT if options.others else None) as server:
        versions = server.versions(options.scratch / "download-listing")
        for trip in _ROUND_TRIPS_MS:
            yield _compare(options, server, versions, trip)


def _compare(options: Options, server: Mirror, versions: list[str], trip: int) -> Report:
    began: dict[str, int] = {}
    # They know the mirror itself, not the relay that makes it distant.
    others = [] if trip else list(options.others)
    unverified = [other for other in others if not other.mirrors_database()]
    notes = [
        f"{other.name} does not mirror the checksum database: its downloads are not verified"
        for other in unverified
    ]
    with ExitStack() as stack:
        root = server.root
        if trip:
            relay = stack.enter_context(Relay(server.port, delay_seconds=trip / 1000))
            root = f"http://127.0.0.1:{relay.port}/mod"
        folder = options.scratch / f"download-{trip}"
        site = stack.enter_context(Site(folder, options.tools, root))
        sides = {_DIRECT: root}
        if not trip:
            sides[_NGINX] = f"{site.plain}/mod"
            sides[_PYTHON] = stack.enter_context(passing_on(root))
        sides[_BACKEND] = site.url
        seconds: dict[str, list[float]] = {side: [] for side in (*sides, _AGAIN)}
        for number in range(options.rounds):
            options.say(f"download: round {number + 1} of {options.rounds}, {trip} ms away")
            site.empty()
            in_turn = list(sides.items())
            for side, goproxy in in_turn if number % 2 else reversed(in_turn):
                seconds[side].append(_download(folder, goproxy, versions))
            seconds[_AGAIN].append(_download(folder, site.url, versions))
            for other in tuple(others):
                side = f"{other.name}, {'again' if number else 'the first time'}"
                try:
                    verify = other not in unverified
                    taken = _download(folder, other.url, versions, verify=verify)
                except DownloadError as error:
                    others.remove(other)
                    notes.append(f"{other.name} is left out: {error}")
                    continue
                seconds.setdefault(side, []).append(taken)
                began.setdefault(side, number)
            marks = site.store / "unverified"
            assert not any(path.is_file() for path in marks.rglob("*")), "not all was verified"
    ratios = {
        side: median_ratio(taken, seconds[_DIRECT][began.get(side, 0) :][: len(taken)])
        for side, taken in seconds.items()
    }
    away = f"a mirror {trip} ms away" if trip else "a mirror on the same machine"
    return Report(
        title=f"Cold go mod download of {len(versions)} versions, {away} ({options.rounds} rounds)",
        columns=("GOPROXY", "seconds", "ratio"),
        rows=[[side, spread(taken, 2), f"{ratios[side]:.2f}"] for side, taken in seconds.items()],
        targets=[Target(what=f"wall time, {away}", value=ratios[_BACKEND], limit=1.3)],
        notes=notes,
        raw=seconds,
    )


def _download(folder: Path, goproxy: str, versions: list[str], *, verify: bool = True) -> float:
    home = folder / f"client-{next(_clients)}"
    started = time.monotonic()
    done = go_mod_download(home, goproxy, *versions, verify=verify)
    seconds = time.monotonic() - started
    if done.returncode != 0:
        said = done.stderr.decode().strip()
        raise DownloadError(f"go mod download by way of {goproxy} failed: {said}")
    return seconds
