"""What is known when a pool manager starts: from the status of the last one, and from nginx's file.

A restart of the manager changes nothing for nginx: who was down is not let in, and who was ready is
not left out, until that was looked at again.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from modhaven.pool import status
from modhaven.pool.drains import Drain
from modhaven.pool.health import Seen
from modhaven.pool.names import is_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modhaven.pool.settings import Server
    from modhaven.pool.status import PoolStatus, ServerStatus

# As upstream.conf.j2 writes them: "server address:port …;  # backend1", then " (name)" where that
# was looked up, and ": reason" where it is not asked.
LISTED = re.compile(
    r"^\s*server \[?(?P<address>[^\s#\]]+)\]?:(?P<port>\d+)"
    r"(?P<doubted>[^#]* max_fails=[1-9])?[^#]*;  # (?P<name>[^\s:]+)"
    r"(?: \((?P<looked_up>[^\s)]+)\))?(?:: (?P<reason>\w+))?",
    re.MULTILINE,
)


def seen(servers: Iterable[Server], live: str, last: PoolStatus | None) -> dict[str, Seen]:
    """Return what was known of each of ``servers`` by its name, of none that was elsewhere then.

    ``live`` is the text of upstream.conf; ``last`` is what was told last, if that is known.
    """
    listed = {one["name"]: one for one in LISTED.finditer(live)}
    found = {}
    for server in servers:
        line = listed.get(server.name)
        address, state = server.address, ""
        if line is not None and _place(line) == (server.address, server.port):
            # A backup that rests was well; who is asked though it is down was not.
            out = line["doubted"] or line["reason"] not in (None, "resting")
            address, state = line["address"], "down" if out else "up"
        looked_up = address if is_name(server.address) and not is_name(address) else ""
        told = last.server(server.name) if last is not None else None
        if told is not None and told.address == status.place(address, server.port):
            found[server.name] = Seen(
                state=_state(told),
                since=told.since,
                error=told.error,
                error_at=told.error_at,
                address=looked_up,
            )
        elif state:
            found[server.name] = Seen(state=state, address=looked_up)
    return found


def drained(live: str) -> dict[str, Drain]:
    """Return who is drained as far as nginx was told; why, it was not."""
    return {
        one["name"]: Drain(reason="", since=time.time())
        for one in LISTED.finditer(live)
        if one["reason"] == "drained"
    }


def _place(line: re.Match[str]) -> tuple[str, int]:
    return line["looked_up"] or line["address"], int(line["port"])


def _state(told: ServerStatus) -> str:
    if told.ready:
        return "up"
    return "joining" if told.state == "joining" else "down"
