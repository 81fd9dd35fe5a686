"""``python -m tests.bench [FIGURE …]``: measures on loopback, prints tables, keeps the raw values.

A benchmark reports: it ends with status 0 whether targets were held or missed, and says which.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING

from tests.bench.black_hole import black_hole
from tests.bench.download import download
from tests.bench.figures import Report, table
from tests.bench.hits import hits
from tests.bench.loopback import Tools, scratch
from tests.bench.machine import describe
from tests.bench.memory import memory
from tests.bench.options import Options
from tests.bench.other import FILES, MIRROR, parse_others
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# What frees most inodes comes last (loopback.Site.empty).
FIGURES: dict[str, Callable[[Options], Iterable[Report]]] = {
    "hits": hits,
    "black-hole": black_hole,
    "download": download,
    "memory": memory,
}


def main() -> None:
    """Run the figures that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("figures", nargs="*", choices=[[], *FIGURES], metavar="FIGURE",
                        help=f"{', '.join(FIGURES)}; all of them when none is named")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=7, help="of each other comparison")
    parser.add_argument("--hit-rounds", type=int, default=15, help="of hits, which take 20 s each")
    parser.add_argument("--memory-rounds", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=1, help="of one run of wrk")
    parser.add_argument(
        "--other", action="append", metavar="[NAME=]URL",
        help="compare a GOPROXY server on this machine, too, in hits and download; several times"
        f" for several. Before, start it empty with the upstreams {FILES} and {MIRROR}, where the"
        " mirrors of this run will be; where it does not find them it is left out, with a note."
        " $MODHAVEN_BENCH_OTHER holds such words when there is none",
    )  # fmt: skip
    arguments = parser.parse_args()
    try:
        others = parse_others(arguments.other or os.environ.get("MODHAVEN_BENCH_OTHER", "").split())
    except ValueError as error:
        parser.error(str(error))
    # So that files and processes are cleaned up whoever ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    tools = Tools.fetch()
    machine = describe(tools)
    command = shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]])
    _print("\n".join([f"Command: `{command}`", "", *table(("", ""), list(machine.items()))]))
    reports = []
    with scratch() as folder:
        options = Options(
            tools=tools,
            scratch=folder,
            rounds=arguments.rounds,
            hit_rounds=arguments.hit_rounds,
            memory_rounds=arguments.memory_rounds,
            seconds=arguments.seconds,
            others=others,
        )
        for name in arguments.figures or FIGURES:
            for report in FIGURES[name](options):
                _print(report.markdown())
                reports.append(report)
    path = ROOT / "reports" / f"bench-{machine['date'].replace(' ', '-').replace(':', '')}.json"
    path.parent.mkdir(exist_ok=True)
    kept = {"command": command, "machine": machine, "reports": [r.as_json() for r in reports]}
    path.write_text(json.dumps(kept, indent=1) + "\n")
    targets = [target for report in reports for target in report.targets]
    held = sum(target.held for target in targets)
    _print(f"{held} of {len(targets)} targets held. Raw values: {path.relative_to(ROOT)}")


def _print(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
