"""What the pool manager tells: a JSON file for programs, a table for people."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modhaven.pool import files, names

if TYPE_CHECKING:
    from modhaven.pool.drains import Drain
    from modhaven.pool.health import Seen
    from modhaven.pool.settings import Server

# The manager writes every second, but nginx may take long to judge and to load a pool.
_OLD_SECONDS = 30.0
_MOST_NAMES = 5
_LEAST_WORDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One backend, as it is seen and as nginx has it.

    ``state`` is up, down, joining, drained, kept (down, and asked all the same), or resting (a
    backup that is up, where nginx itself knows no backups). ``reason`` is why it is drained;
    ``error`` why it was last not ready, at ``error_at``. ``in_flight`` is the requests it worked on
    at ``in_flight_at``, None while it does not say; ``gone``: it works on nothing any more, for it
    refuses connections or has been silent for long. Moments are seconds since the epoch.

    Whoever reads may be of another release than who wrote: hence defaults.
    """

    name: str
    address: str = ""
    weight: int = 1
    backup: bool = False
    state: str = "joining"
    asked: bool = False
    ready: bool = False
    since: float = 0.0
    reason: str = ""
    error: str = ""
    error_at: float = 0.0
    in_flight: int | None = None
    in_flight_at: float = 0.0
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """The pool on one edge, by the manager with process id ``pid``.

    Nothing in it was looked at before ``time`` (seconds since the epoch). ``published``: nginx has
    what is told here, or takes it when it starts. ``reload_seconds`` is the least time between two
    reloads.
    """

    time: float
    servers: tuple[ServerStatus, ...]
    published: bool = False
    error: str = ""
    kept: bool = False
    promoted: bool = False
    connections: float | None = None
    baseline: float = 0.0
    reloads: int = 0
    reload_seconds: float = 2.0
    pid: int = field(default_factory=os.getpid)

    @property
    def is_old(self) -> bool:
        """Whether nobody keeps it up to date."""
        return time.time() - self.time > _OLD_SECONDS or not Path(f"/proc/{self.pid}").exists()

    def server(self, name: str) -> ServerStatus | None:
        """Return the status of one backend."""
        return next((server for server in self.servers if server.name == name), None)


def of_server(server: Server, seen: Seen, *, out: str, drain: Drain | None) -> ServerStatus:
    """Join what is configured, seen, decided (``out``: why it is not asked) and wanted."""
    state = seen.state
    if not out and state == "down":
        state = "kept"
    elif out == "resting":
        state = out
    return ServerStatus(
        name=server.name,
        address=place(server.address, server.port),
        weight=server.weight,
        backup=server.backup,
        state="drained" if drain else state,
        asked=not out,
        ready=seen.state == "up",
        since=drain.since if drain else seen.since,
        reason=drain.reason if drain else "",
        error=seen.error,
        error_at=seen.error_at,
        in_flight=seen.in_flight,
        in_flight_at=seen.in_flight_at,
        gone=seen.gone,
    )


def place(address: str, port: int) -> str:
    """Return what a backend's address and port are told as."""
    return f"{names.host_of_url(address)}:{port}"


def write(path: Path, status: PoolStatus) -> None:
    """Replace the file atomically. OSError."""
    files.replace(path, json.dumps(asdict(status)) + "\n")


def read(path: Path) -> PoolStatus | None:
    """Return what was written last, by whatever release; None where there is nothing of use."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        servers = tuple(
            ServerStatus(**_known(ServerStatus, server)) for server in data.pop("servers")
        )
        return PoolStatus(servers=servers, **({"pid": 0} | _known(PoolStatus, data)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _known(kind: type[ServerStatus | PoolStatus], data: dict[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in data.items() if name in names}


def table(status: PoolStatus, *, now: float, width: int | None = None) -> str:
    """Return the pool as a table, and below it what is out of the ordinary.

    Its last column is cut so that a line has at most ``width`` characters.
    """
    rows = [
        ("backend", "address", "weight", "state", "for", "in flight", "last error"),
        *(_row(server, status, now) for server in status.servers),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    left = max(_LEAST_WORDS, width - sum(widths) - 2 * len(widths)) if width else None
    lines = []
    for name, address, weight, state, time_in_it, flying, why in rows:
        cells = (
            name.ljust(widths[0]), address.ljust(widths[1]), weight.rjust(widths[2]),
            state.ljust(widths[3]), time_in_it.rjust(widths[4]), flying.rjust(widths[5]),
            why if left is None or len(why) <= left else f"{why[: left - 1]}…",
        )  # fmt: skip
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *_remarks(status)]) + "\n"


def _row(server: ServerStatus, status: PoolStatus, now: float) -> tuple[str, ...]:
    state = server.state + (" (backup)" if server.backup and not status.promoted else "")
    flying = "-" if server.in_flight is None else str(server.in_flight)
    return (
        server.name, server.address, str(server.weight), state, _ago(now - server.since), flying,
        _why(server, now),
    )  # fmt: skip


def _why(server: ServerStatus, now: float) -> str:
    when = f" ({_ago(now - server.error_at)} ago)" if server.error and server.ready else ""
    if server.state == "drained":
        return "; ".join(filter(None, [server.reason, "" if server.ready else server.error]))
    return server.error + when


def _remarks(status: PoolStatus) -> list[str]:
    lines = []
    if status.kept:
        names = [one.name for one in status.servers if one.asked and one.state != "up"]
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        lines.append(
            "Too few would be left (max_removed_share), so these are asked all the same: "
            f"{', '.join(names[:_MOST_NAMES])}{more}."
        )
    if status.promoted:
        lines.append(
            f"More connections than usual ({status.connections or 0:.0f}, usual are "
            f"{status.baseline:.0f}): backups serve beside the others."
        )
    if not status.published:
        lines.append("nginx has not got this pool yet.")
    if status.error:
        lines.append(f"Error: {status.error}")
    return lines


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
