"""Debian's nginx, unpacked from its package and not installed, for tests on loopback."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# tests/lint/nginx.sh fetches the same packages into the same folder.
_DEBS = ROOT / ".lab/nginx"
_FETCH = """
cd "$1"
exec 9>lock
flock 9
ls ./*.deb >/dev/null 2>&1 && exit
apt-get -qq -o APT::Sandbox::User=root download $(apt-cache depends --recurse --no-recommends \\
    --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances nginx |
    grep -E '^nginx' | sort -u)
"""


def unpack(folder: Path) -> Path:
    """Unpack nginx below ``folder``; return the program. CalledProcessError without packages."""
    if not list(_DEBS.glob("*.deb")):
        _DEBS.mkdir(parents=True, exist_ok=True)
        subprocess.run(["bash", "-euc", _FETCH, "fetch", _DEBS], check=True)
    for deb in _DEBS.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", deb, folder], check=True)
    return folder / "usr/sbin/nginx"


def command(folder: Path, program: Path, prefix: Path) -> Path:
    """Make ``folder``/nginx: the program for what is below ``prefix``, as if it were installed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nginx"
    path.write_text(f'#!/bin/sh\nexec {program} -e stderr -p {prefix} "$@"\n')
    path.chmod(0o755)
    shutil.copy(program.parents[2] / "etc/nginx/mime.types", prefix)
    return path
