"""On what a figure was measured, and from which state of the repository."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.loopback import GO
from tests.conftest import ROOT

if TYPE_CHECKING:
    from tests.bench.loopback import Tools


def describe(tools: Tools) -> dict[str, str]:
    """Return what a reader of the figures has to know, by name."""
    cpus = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    release = Path("/etc/debian_version")
    return {
        "date": datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _says("git", "-c", "safe.directory=*", "describe", "--always", "--dirty"),
        "cores": str(os.cpu_count()),
        "CPU": cpus[0] if cpus else platform.machine(),
        "load": f"{os.getloadavg()[0]:.1f} over the last minute, before the first measurement",
        "memory": f"{int(memory[1]) / (1 << 20):.0f} GiB" if memory else "unknown",
        "kernel": platform.release(),
        "Debian": release.read_text().strip() if release.exists() else "no",
        "nginx": _says(str(tools.nginx), "-v").rpartition("/")[2],
        "Python": platform.python_version(),
        "Go": _says(str(GO), "env", "GOVERSION").removeprefix("go"),
    }


def _says(*command: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.stdout.strip()
