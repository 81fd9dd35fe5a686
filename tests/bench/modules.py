"""Modules made for a benchmark, as a mirror's files; what is in them cannot be compressed."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
_TIME = "2024-01-02T03:04:05Z"


@dataclass(frozen=True)
class Made:
    """A module version: its path below a GOPROXY without suffix, and its zip's size."""

    base: str
    zip_bytes: int


def make(folder: Path, name: str, mebibytes: int) -> Made:
    """Write the module ``example.com/bench/<name>`` at v1.0.0 in a mirror's layout."""
    module, version = f"example.com/bench/{name}", "v1.0.0"
    base = f"{module}/@v/{version}"
    path = folder / base
    path.parent.mkdir(parents=True)
    go_mod = f"module {module}\n\ngo 1.21\n"
    path.with_name(f"{version}.info").write_text(f'{{"Version":"{version}","Time":"{_TIME}"}}')
    path.with_name(f"{version}.mod").write_text(go_mod)
    target = path.with_name(f"{version}.zip")
    # Level 0 writes the stored blocks that deflate ends up with for such data, without trying.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=0) as archive:
        archive.writestr(f"{module}@{version}/go.mod", go_mod)
        with archive.open(f"{module}@{version}/data.bin", "w") as data:
            for _ in range(mebibytes):
                data.write(os.urandom(MIB))
    return Made(base=base, zip_bytes=target.stat().st_size)
