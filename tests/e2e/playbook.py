"""Runs playbooks as an operator does and reads the recap."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.inventory import ROOT, tool

if TYPE_CHECKING:
    from pathlib import Path

_RECAP = re.compile(r"^(\S+)\s+: (ok=\d+.*)$", re.MULTILINE)
PLAYBOOK_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class PlaybookRun:
    """How a playbook ended; `recap` is host to {"ok": 3, "changed": 0, …}."""

    ok: bool
    output: str
    recap: dict[str, dict[str, int]]

    def changed(self) -> dict[str, int]:
        """Give the hosts on which something changed, with the number of tasks."""
        return {host: counts["changed"] for host, counts in self.recap.items() if counts["changed"]}


def play(playbook: str, inventory: Path | str, *arguments: str) -> PlaybookRun:
    """Run a playbook of the repository on an inventory."""
    done = subprocess.run(
        [tool("ansible-playbook"), "-i", str(inventory), playbook, *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        timeout=PLAYBOOK_SECONDS,
    )
    recap = {
        host: {key: int(value) for key, value in (pair.split("=") for pair in counts.split())}
        for host, counts in _RECAP.findall(done.stdout)
    }
    return PlaybookRun(ok=done.returncode == 0, output=done.stdout, recap=recap)


def copy_inventory(target: Path) -> Path:
    """Copy the lab's inventory, with its authority, so that a test can edit it."""
    shutil.copytree(ROOT / "inventories" / "lab", target)
    return target


def vagrant(inventory: Path, *arguments: str) -> None:
    """Run vagrant on the machines of an inventory; raises with its output when it fails."""
    done = subprocess.run(
        ["vagrant", *arguments],
        cwd=ROOT,
        env={**os.environ, "MODHAVEN_INVENTORY": str(inventory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        timeout=PLAYBOOK_SECONDS,
    )
    if done.returncode != 0:
        raise RuntimeError(f"vagrant {' '.join(arguments)} failed:\n{done.stdout}")
