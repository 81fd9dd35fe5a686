"""Takes the edge with the VIP away from many builds at once, again and again, and counts them.

Eight loops of `go mod download`, each with an empty module cache and what the role client has set,
run on the lab's client while that edge's cable is pulled or its nginx is killed. As a program:
``python -m tests.lab.edge_loss cut|killed [ROUNDS]``. Exit status 1 when a build failed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.e2e import cluster, golang
from tests.lab import faults

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

LOOPS = 8
SECONDS = 4
MODULES = ("rsc.io/quote@v1.5.2", "rsc.io/sampler@v1.3.0")
FAULTS: dict[str, Callable[[str], AbstractContextManager[None]]] = {
    "cut": faults.link_down,
    "killed": lambda edge: faults.killed(edge, "nginx.service"),
}


def lose_edge(how: str) -> list[golang.GoRun]:
    """Make the fault in the middle of the downloads; give all of them."""
    cluster.wait_until_whole()
    master = cluster.vip_master()
    end = time.monotonic() + SECONDS
    with ThreadPoolExecutor(LOOPS) as pool:
        running = [
            pool.submit(
                golang.downloads, cluster.client(), *MODULES, until=lambda: time.monotonic() > end
            )
            for _ in range(LOOPS)
        ]
        # At any moment of a download, well after the loops have begun.
        time.sleep(SECONDS * random.uniform(0.3, 0.6))  # noqa: S311 - no secret
        with FAULTS[how](master):
            return [run for loop in running for run in loop.result()]


def main() -> int:
    """Print a line for each round, what failed builds said, and the sum."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.edge_loss")
    parser.add_argument("how", choices=FAULTS)
    parser.add_argument("rounds", type=int, nargs="?", default=16)
    options = parser.parse_args()
    every: list[golang.GoRun] = []
    for number in range(1, options.rounds + 1):
        runs = lose_edge(options.how)
        every += runs
        tell(f"{options.how} {number}", runs)
        sys.stdout.writelines(f"{run.output}\n" for run in runs if not run.ok)
        sys.stdout.flush()
    tell(f"{options.rounds} times, {LOOPS} under way each time", every)
    return 0 if all(run.ok for run in every) else 1


def tell(about: str, runs: list[golang.GoRun]) -> None:
    """Print how many there were, how many failed, and how long the slowest took."""
    failed = sum(not run.ok for run in runs)
    slowest = max(run.seconds for run in runs)
    sys.stdout.write(f"{about}: {len(runs)} builds, {failed} failed, slowest {slowest:.2f} s\n")


if __name__ == "__main__":
    sys.exit(main())
