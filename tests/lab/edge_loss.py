"""Takes the edge with the VIP away from many builds at once, again and again, and counts them.

Eight loops of `go mod download`, each with an empty module cache and what the role client has set,
run on the lab's client while that edge's cable is pulled or its nginx is killed. As a program:
``python -m tests.lab.edge_loss cut|killed [ROUNDS]``. Exit status 1 when a build failed.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.e2e import cluster, golang
from tests.lab import faults, remote

LOOPS = 8
SECONDS = 4
MODULES = ("rsc.io/quote@v1.5.2", "rsc.io/sampler@v1.3.0")
FAULTS = {"cut": faults.link_down, "killed": lambda edge: faults.killed(edge, "nginx.service")}
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
    shown = golang.shell(cluster.client(), script).output
    found = (line.split(" ", 3) for line in shown.splitlines() if line.startswith("build "))
    return [
        Build(ok=how == "ok", milliseconds=int(took), said=said.replace("\t", "\n"))
        for _, how, took, said in found
    ]


def lose_edge(how: str) -> list[Build]:
    """Make the fault in the middle of the builds; give all of them."""
    remote.wait_until("one edge to hold the VIP", lambda: len(cluster.vip_holders()) == 1, 30)
    (master,) = cluster.vip_holders()
    with ThreadPoolExecutor(LOOPS) as pool:
        running = [pool.submit(loop) for _ in range(LOOPS)]
        remote.wait_until("builds", lambda: any_builds(master), SECONDS)
        with FAULTS[how](master):
            return [build for loops in running for build in loops.result()]


def any_builds(edge: str) -> bool:
    """Whether some client's connection is open on an edge's VIP."""
    return bool(remote.run(edge, "ss", "-Htn", "src", cluster.vip()).stdout.strip())


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
