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
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.e2e import cluster, golang
from tests.lab import faults, remote

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
LOOP = r"""
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
export GOMODCACHE="$work/modcache" GOFLAGS=-modcacherw
end=$(($(date +%s) + {seconds}))
while [ "$(date +%s)" -lt "$end" ]; do
    rm -rf modcache go.mod
    go mod init example.com/try 2>/dev/null
    begun=$(date +%s%3N)
    go mod download -x {modules} >said 2>&1 && how=ok || how=failed
    echo "build $how $(($(date +%s%3N) - begun)) $(tr '\n' '\t' <said)"
done
"""


@dataclass(frozen=True, kw_only=True)
class Build:
    """One `go mod download`; ``said`` is its own account, in lines."""

    ok: bool
    milliseconds: int
    said: str


def loop() -> list[Build]:
    """Build over and over on the client for SECONDS."""
    script = LOOP.format(seconds=SECONDS, modules=" ".join(MODULES))
    run = golang.shell(cluster.client(), script)
    if not run.ok:
        raise RuntimeError(f"the loop of builds ended early: {run.output}")
    found = (line.split(" ", 3) for line in run.output.splitlines() if line.startswith("build "))
    return [
        Build(ok=how == "ok", milliseconds=int(took), said=said.replace("\t", "\n"))
        for _, how, took, said in found
    ]


def lose_edge(how: str) -> list[Build]:
    """Make the fault in the middle of the builds; give all of them."""
    cluster.wait_until_whole()
    remote.wait_until("one edge to hold the VIP", lambda: len(cluster.vip_holders()) == 1, 30)
    (master,) = cluster.vip_holders()
    with ThreadPoolExecutor(LOOPS) as pool:
        running = [pool.submit(loop) for _ in range(LOOPS)]
        # At any moment of a build, well after the loops have begun.
        time.sleep(SECONDS * random.uniform(0.3, 0.6))  # noqa: S311 - no secret
        with FAULTS[how](master):
            return [build for loops in running for build in loops.result()]


def main() -> int:
    """Print a line for each round, what failed builds said, and the sum."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.edge_loss")
    parser.add_argument("how", choices=FAULTS)
    parser.add_argument("rounds", type=int, nargs="?", default=16)
    options = parser.parse_args()
    every: list[Build] = []
    for number in range(1, options.rounds + 1):
        builds = lose_edge(options.how)
        every += builds
        failed = [build for build in builds if not build.ok]
        slowest = max(build.milliseconds for build in builds) / 1000
        sys.stdout.write(
            f"{options.how} {number}: {len(builds)} builds, {len(failed)} failed, "
            f"slowest {slowest:.2f} s\n"
        )
        sys.stdout.writelines(f"{build.said}\n" for build in failed)
        sys.stdout.flush()
    failed = [build for build in every if not build.ok]
    slowest = max(build.milliseconds for build in every) / 1000
    sys.stdout.write(
        f"{options.rounds} times, {LOOPS} builds under way each time: {len(failed)} failed, "
        f"{len(every) - len(failed)} did not, slowest {slowest:.2f} s\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
