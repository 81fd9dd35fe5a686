"""Whatever one or two of the mirrors do in the middle of a cold download, no build fails."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e import cluster, golang, origin
from tests.lab import faults, remote

from modhaven import modpath

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Say

MIRRORS = ("goproxy.cn", "goproxy.io", "proxy.golang.org")
FAULTS: dict[str, dict[str, Any]] = {
    "refuses": {"kind": "down"},
    "is a black hole": {"kind": "blackhole"},
    "is slow": {"kind": "delay", "seconds": 3},
    "answers 500": {"kind": "status", "code": 500},
    "answers 503": {"kind": "status", "code": 503},
    "cuts bodies short": {"kind": "truncate"},
    "gives wrong bytes": {"kind": "wrong_bytes", "match": r"\.(zip|mod)$"},
    "gives wrong checksums": {"kind": "wrong_bytes", "match": "^/sumdb/"},
}
MODULES = 30
# How long the random order goes on; `make soak` sets ten minutes.
SECONDS = float(os.environ.get("MODHAVEN_SOAK_SECONDS", "30"))
SEED = int(os.environ.get("MODHAVEN_SOAK_SEED", time.time_ns() % 1_000_000))


def zips() -> list[origin.File]:
    return [file for file in origin.files() if file.path.endswith(".zip")]


def module_at_version(file: origin.File) -> str:
    escaped, _, name = file.path.removeprefix("/").partition("/@v/")
    version = modpath.unescape_version(name.removesuffix(".zip"))
    return f"{modpath.unescape_path(escaped)}@{version}"


def wait_for_requests(count: int) -> None:
    """Wait until the mirrors have been asked so often: the download is under way."""
    remote.wait_until(
        f"{count} requests at the mirrors",
        lambda: sum(len(faults.requests_seen(name)) for name in MIRRORS) >= count,
        30,
        every=0.05,
    )


def check(run: golang.GoRun, got: dict[str, str], wanted: int) -> None:
    """Every module arrived, each file with the mirror's own bytes."""
    assert run.ok, run.output
    right = {file.path: file.sha256 for file in origin.files()}
    wrong = {path for path, digest in got.items() if right.get(path, digest) != digest}
    assert not wrong
    assert sum(path.endswith(".zip") for path in got) >= wanted


@pytest.fixture(autouse=True)
def _no_mirror_is_left_out() -> None:
    # An earlier fault may have left a mirror out; new processes know nothing of it.
    for name in cluster.names("backends"):
        remote.run(name, "systemctl", "restart", "modhaven.service")


@pytest.mark.parametrize("what", FAULTS)
def test_no_build_fails_when_in_the_middle_of_it_the_first_mirror(what: str, say: Say) -> None:
    cluster.forget(origin.files())
    faults.forget_requests()
    modules = [module_at_version(file) for file in zips()[:MODULES]]
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(golang.download_and_sum, cluster.client(), *modules)
        wait_for_requests(10)
        with faults.mirror_fault(MIRRORS[0], **FAULTS[what]):
            run, got = download.result()
    check(run, got, MODULES)
    say(f"in mid-download {MIRRORS[0]} {what}: {MODULES} modules in {run.seconds:.2f} s")


class Trouble:
    """One or two mirrors with random faults at any time, changed every second or so."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._over = threading.Event()
        self.switched = 0

    def run(self) -> None:
        while not self._over.is_set():
            with contextlib.ExitStack() as stack:
                for name in self._dice.sample(MIRRORS, self._dice.choice((1, 2))):
                    what = self._dice.choice(list(FAULTS))
                    stack.enter_context(faults.mirror_fault(name, **FAULTS[what]))
                    self.switched += 1
                self._over.wait(self._dice.uniform(0.3, 3))

    def end(self) -> None:
        self._over.set()


@contextlib.contextmanager
def trouble(dice: random.Random) -> Iterator[Trouble]:
    troubles = Trouble(dice)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(troubles.run)
        try:
            yield troubles
        finally:
            troubles.end()
            running.result()


@pytest.mark.timeout(SECONDS + 240)
def test_no_build_fails_while_mirrors_fail_in_random_order(say: Say) -> None:
    say(f"random faults for {SECONDS:g} s, MODHAVEN_SOAK_SEED={SEED}")
    dice = random.Random(SEED)  # noqa: S311 - a shuffle that can be repeated
    slowest, builds, compared = 0.0, 0, 0
    # What is right is learned from a mirror before it has faults.
    candidates = zips()
    end = time.monotonic() + SECONDS
    with trouble(random.Random(SEED + 1)) as troubles:  # noqa: S311 - likewise
        while time.monotonic() < end:
            chosen = dice.sample(candidates, MODULES)
            cluster.forget(origin.files())
            run, got = golang.download_and_sum(
                cluster.client(), *(module_at_version(file) for file in chosen)
            )
            check(run, got, MODULES)
            builds, compared = builds + 1, compared + len(got)
            slowest = max(slowest, run.seconds)
    say(
        f"{troubles.switched} faults in {SECONDS:g} s: {builds} cold downloads of {MODULES}"
        f" modules, 0 failed, {compared} files compared, 0 wrong, slowest download {slowest:.1f} s"
    )
