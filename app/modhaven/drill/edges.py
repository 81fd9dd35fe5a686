"""Watches what every edge sees while a scenario runs."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from modhaven.drill import watch
from modhaven.drill.faults import STAY_OUT
from modhaven.drill.figures import Look, has_successor, is_whole
from modhaven.drill.hosts import Host, HostError, Program
from modhaven.drill.observe import Clocks, python
from modhaven.pool.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STATUS = str(Paths().status)
# Where roles/vip waits for it too.
KEEPALIVED = "/run/keepalived.pid"


class Edges:
    """What every edge sees, as it changes."""

    def __init__(self, edges: Sequence[Host], clocks: Clocks, *, vip: str, port: int) -> None:
        """Begin to watch; HostError for an edge that cannot be watched."""
        self.looks: list[Look] = []
        self._last: dict[str, Look] = {}
        self._edges = {edge.name: edge for edge in edges}
        self._clocks = clocks
        self._plan = {
            "vip": vip,
            "status": STATUS,
            "port": port,
            "keepalived": KEEPALIVED,
            "stay_out": STAY_OUT,
        }
        self._changed = threading.Condition()
        self._programs: dict[str, Program] = {}
        # How many looks there were when the watch of each edge began.
        self._began: dict[str, int] = {}
        try:
            for edge in edges:
                self._watch(edge)
        except BaseException:
            self.close()
            raise

    def last(self) -> dict[str, Look]:
        """Give what each edge saw last."""
        with self._changed:
            return dict(self._last)

    def wait_until_whole(
        self,
        *,
        up: frozenset[str],
        seconds: float,
        successor: bool = False,
        again: Sequence[str] = (),
        rebooted: Sequence[str] = (),
    ) -> float | None:
        """Wait until the edges see all well, and give the moment; None when they do not.

        ``successor``: another edge must be able to take the VIP. ``again`` are edges that were hit:
        their watch is begun anew, when they are there again; of ``rebooted`` ones not before they
        have started anew.
        """
        deadline = time.monotonic() + seconds
        before = {name: self._last[name].boot for name in rebooted}
        for name in again:
            self._watch_no_more(name)
        while time.monotonic() < deadline:
            # What a watch saw last says nothing once it has ended.
            for name in [name for name, one in self._programs.items() if not one.is_running]:
                self._watch_no_more(name)
            for name in set(self._edges) - set(self._programs):
                with contextlib.suppress(HostError):
                    if self._watch(self._edges[name]) == before.get(name):
                        # It has not even gone down yet.
                        self._watch_no_more(name)
            with self._changed:
                if (
                    len(self._last) == len(self._edges)
                    and is_whole(self._last, up=up, vip=bool(self._plan["vip"]))
                    and (not successor or has_successor(self._last))
                ):
                    return max(self._whole_since(name, up) for name in self._last)
                self._changed.wait(min(0.5, max(0.0, deadline - time.monotonic())))
        return None

    @property
    def names(self) -> list[str]:
        """Give the edges that are watched, or were and will be again."""
        return list(self._edges)

    def holders(self) -> list[str]:
        """Give the edges that have the VIP."""
        return [name for name, look in self.last().items() if look.vip]

    def close(self) -> None:
        """End the watches."""
        for program in self._programs.values():
            program.kill()

    def _whole_since(self, name: str, up: frozenset[str]) -> float:
        since = self._last[name].time
        # What an earlier watch saw says nothing about the time between the two.
        looks = self.looks[self._began[name] :]
        for look in reversed([look for look in looks if look.edge == name]):
            if not (look.answers and look.published and up <= look.up):
                break
            if look.vip != self._last[name].vip:
                break
            since = look.time
        return since

    def _watch(self, edge: Host) -> str:
        """Begin to watch, and give the edge's boot; HostError."""

        def told(line: dict[str, Any]) -> None:
            self._note(edge, line)

        self._began[edge.name] = len(self.looks)
        program = Program(
            f"the watch on {edge.name}",
            python(edge, watch, root=True),
            plan=self._plan,
            told=told,
        )
        try:
            boot = str(program.first(10)["boot"])
        except HostError:
            program.kill()
            raise
        self._programs[edge.name] = program
        return boot

    def _watch_no_more(self, name: str) -> None:
        self._programs.pop(name).kill()
        with self._changed:
            self._last.pop(name, None)

    def _note(self, edge: Host, line: Mapping[str, Any]) -> None:
        pool: Mapping[str, Sequence[Any]] = line["pool"]
        look = Look(
            edge=edge.name,
            time=self._clocks.here(edge, line["time"]),
            boot=line["boot"],
            vip=line["vip"],
            can_take_vip=line["can_take_vip"],
            answers=line["answers"],
            published=line["published"],
            asked=frozenset(name for name, (_, asked) in pool.items() if asked),
            # A backup where nginx knows none (edge_balance: hash) is ready, and not asked.
            up=frozenset(name for name, (state, _) in pool.items() if state in {"up", "resting"}),
        )
        with self._changed:
            self.looks.append(look)
            self._last[edge.name] = look
            self._changed.notify_all()
