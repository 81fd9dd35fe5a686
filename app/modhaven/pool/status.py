"""What the pool manager tells: a JSON file for programs, a table for people."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# The manager writes several times a second; older than this it does not run.
_OLD_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One backend: ``state`` is up, down, joining, drained, or kept (down, and asked all the same).

    ``since`` is seconds since the epoch; ``in_flight`` None while it does not say.
    """

    name: str
    address: str
    weight: int
    backup: bool
    state: str
    asked: bool
    since: float
    error: str
    in_flight: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """The pool on one edge; ``published``: nginx has what is told here."""

    time: float
    published: bool
    error: str
    kept: bool
    promoted: bool
    connections: float | None
    baseline: float
    reloads: int
    servers: tuple[ServerStatus, ...]

    @property
    def is_old(self) -> bool:
        """Whether nobody keeps it up to date."""
        return time.time() - self.time > _OLD_SECONDS

    def server(self, name: str) -> ServerStatus | None:
        """Return the status of one backend."""
        return next((server for server in self.servers if server.name == name), None)


def write(path: Path, status: PoolStatus) -> None:
    """Replace the file atomically. OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(asdict(status)) + "\n", encoding="utf-8")
    fresh.replace(path)


def read(path: Path) -> PoolStatus | None:
    """Return what was written last; None where there is nothing of use."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        servers = tuple(ServerStatus(**server) for server in data.pop("servers"))
        return PoolStatus(servers=servers, **data)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def table(status: PoolStatus, *, now: float) -> str:
    """Return the pool as a table, and below it what is out of the ordinary."""
    rows = [("backend", "address", "weight", "state", "for", "in flight", "why")]
    for server in status.servers:
        state = server.state + (" (backup)" if server.backup and not status.promoted else "")
        flying = "-" if server.in_flight is None else str(server.in_flight)
        rows.append(
            (server.name, server.address, str(server.weight), state, _ago(now - server.since),
             flying, server.error)
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if status.kept:
        lines.append("Too many are down to be left out (max_removed_share): all are asked.")
    if status.promoted:
        lines.append(
            f"More connections than usual ({status.connections or 0:.0f}, usual are "
            f"{status.baseline:.0f}): backups serve beside the others."
        )
    if not status.published:
        lines.append(f"nginx has not got this yet{': ' + status.error if status.error else ''}")
    return "\n".join(lines) + "\n"


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
