"""Memory: what the app needs while it fetches, verifies and hands out many large zips at once."""

from __future__ import annotations

import http.client
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.bench import modules
from tests.bench.figures import Report, Target, median
from tests.bench.loopback import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.options import Options

_ZIPS = 16
_MEBIBYTES = 200
_SAMPLE_SECONDS = 0.05
_MB = 1_000_000
_CHUNK = 1 << 20


@dataclass
class Sampler:
    """Watches the resident memory of some processes; peaks of their sums, in MB."""

    pids: Callable[[], list[int]]
    rss: float = 0.0
    pss: float = 0.0
    samples: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def sample(self) -> None:
        sums = [resident(pid) for pid in self.pids()]
        self.rss = max(self.rss, sum(rss for rss, _ in sums))
        self.pss = max(self.pss, sum(pss for _, pss in sums))
        self.samples += 1

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.sample()


def resident(pid: int) -> tuple[float, float]:
    """Return a process's resident memory in MB: all of it, and with shared pages split (PSS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rss, pss = (re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE) for name in ("Rss", "Pss"))
    assert rss is not None
    assert pss is not None
    return int(rss[1]) * 1024 / _MB, int(pss[1]) * 1024 / _MB


def memory(options: Options) -> list[Report]:
    """Ask the backend for all zips at once, with an empty store."""
    with Site(options.scratch / "memory", options.tools, sumdbs=()) as site:
        options.say(f"memory: making {_ZIPS} zips of {_MEBIBYTES} MiB")
        made = [modules.make(site.files, f"m{n:02}", _MEBIBYTES) for n in range(_ZIPS)]
        idle = Sampler(site.app_pids)
        idle.sample()
        rows = [["idle", f"{idle.rss:.0f}", f"{idle.pss:.0f}", ""]]
        raw: list[dict[str, float]] = []
        for number in range(options.memory_rounds):
            options.say(f"memory: round {number + 1} of {options.memory_rounds}")
            shutil.rmtree(site.empty())
            raw.append(_round(site, made))
        rss, pss, seconds = (median([r[key] for r in raw]) for key in ("rss", "pss", "seconds"))
        rows.append(["fetching all", f"{rss:.0f}", f"{pss:.0f}", f"{seconds:.0f}"])
    worst = max(r["rss"] for r in raw)
    return [
        Report(
            title=f"{_ZIPS} cold zips of {_MEBIBYTES} MiB at once, {options.memory_rounds} rounds",
            columns=("", "peak RSS, MB", "peak PSS, MB", "seconds for all"),
            rows=rows,
            targets=[
                Target(what="the app's largest sum of RSS", value=worst, limit=200, unit=" MB")
            ],
            raw={"rounds": raw},
        )
    ]


def _round(site: Site, made: list[modules.Made]) -> dict[str, float]:
    started = time.monotonic()
    with Sampler(site.app_pids) as sampler, ThreadPoolExecutor(_ZIPS) as pool:
        sizes = list(pool.map(lambda module: _size_of(site, f"/{module.base}.zip"), made))
    assert sizes == [module.zip_bytes for module in made]
    seconds = time.monotonic() - started
    return {"rss": sampler.rss, "pss": sampler.pss, "seconds": seconds, "samples": sampler.samples}


def _size_of(site: Site, path: str) -> int:
    """Return how many bytes the answer has; they are read and forgotten."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=600)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 200, response.read(2000)
    size = 0
    while chunk := response.read(_CHUNK):
        size += len(chunk)
    connection.close()
    return size
