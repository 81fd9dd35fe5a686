"""Watches a running scenario: the load, the builds, and what the edges see."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modhaven.drill import builds, load, watch
from modhaven.drill.figures import Build, Look, Request, is_whole
from modhaven.drill.hosts import Host, HostError, Program
from modhaven.pool.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

STATUS = str(Paths().status)
MUTABLE = ("/@v/list", "/@latest")


def _text(module: Any) -> str:
    return Path(module.__file__).read_text(encoding="utf-8")


def python(host: Host, module: Any, *arguments: str, root: bool = False) -> list[str]:
    """Give the command that runs a one-file program on a host, without leaving it there."""
    return host.command(["python3", "-c", _text(module), *arguments], root=root)


class Clocks:
    """How far the hosts' clocks are ahead of this machine's, in seconds."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        """Ask each host some times; HostError for one that cannot be reached."""
        self.ahead: dict[str, float] = {}
        self.uncertain: dict[str, float] = {}
        for host in hosts:
            with subprocess.Popen(  # noqa: S603 - no word of it comes from outside
                host.command(["sh", "-c", "while read -r _; do date +%s.%N; done"]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                asked = [_ask_clock(host, process) for _ in range(5)]
            self.uncertain[host.name], self.ahead[host.name] = min(asked)

    def here(self, host: Host, moment: float) -> float:
        """Give a moment of a host's clock on this machine's."""
        return moment - self.ahead.get(host.name, 0.0)


def _ask_clock(host: Host, process: subprocess.Popen[str]) -> tuple[float, float]:
    """Give the uncertainty, and how far the clock is ahead: 0 where the way there explains it."""
    before = time.time()
    assert process.stdin  # noqa: S101 - for the type checker
    with contextlib.suppress(BrokenPipeError):
        # Past any buffer, which would be written again when the pipe is closed.
        os.write(process.stdin.fileno(), b"\n")
    line = process.stdout.readline() if process.stdout else ""
    after = time.time()
    if not line:
        said = process.stderr.read().strip().splitlines() if process.stderr else []
        raise HostError(
            f"{host.name} cannot be reached as root over ssh, with a key and without a password:"
            f" {said[-1] if said else 'it said nothing'}"
        )
    ahead, uncertain = float(line) - (before + after) / 2, (after - before) / 2
    return uncertain, ahead if abs(ahead) > uncertain else 0.0


class Edges:
    """What every edge sees, as it changes."""

    def __init__(self, edges: Sequence[Host], clocks: Clocks, *, vip: str, port: int) -> None:
        """Begin to watch; HostError for an edge that cannot be watched."""
        self.looks: list[Look] = []
        self._last: dict[str, Look] = {}
        self._edges = {edge.name: edge for edge in edges}
        self._clocks = clocks
        self._plan = {"vip": vip, "status": STATUS, "port": port}
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
        again: Sequence[str] = (),
        rebooted: Sequence[str] = (),
    ) -> float | None:
        """Wait until the edges see all well, and give the moment; None when they do not.

        ``again`` are edges that were hit: their watch is begun anew, when they are there again;
        of ``rebooted`` ones not before they have started anew.
        """
        deadline = time.monotonic() + seconds
        before = {name: self._last[name].boot for name in rebooted}
        for name in again:
            self._watch_no_more(name)
        while time.monotonic() < deadline:
            for name in set(self._edges) - set(self._programs):
                with contextlib.suppress(HostError):
                    if self._watch(self._edges[name]) == before.get(name):
                        # It has not even gone down yet.
                        self._watch_no_more(name)
            with self._changed:
                if len(self._last) == len(self._edges) and is_whole(
                    self._last, up=up, vip=bool(self._plan["vip"])
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
            answers=line["answers"],
            published=line["published"],
            asked=frozenset(name for name, (_, asked) in pool.items() if asked),
            up=frozenset(name for name, (state, _) in pool.items() if state == "up"),
        )
        with self._changed:
            self.looks.append(look)
            self._last[edge.name] = look
            self._changed.notify_all()


class Loads:
    """The load from every client; ``requests`` grows while it runs."""

    def __init__(
        self, clients: Sequence[Host], clocks: Clocks, plan_of: Callable[[int], dict[str, Any]]
    ) -> None:
        """Start ``plan_of(number of the client)`` on each; HostError."""
        self.requests: list[Request] = []
        self._clocks = clocks
        self._programs: list[Program] = []
        try:
            for number, client in enumerate(clients):
                self._start(client, plan_of(number))
            for program in self._programs:
                program.first()
        except BaseException:
            self.close()
            raise

    def end(self, *, by_itself: bool = False) -> list[Request]:
        """Let it send no more, wait for the answers, and give every request; HostError."""
        for program in self._programs:
            program.end(timeout=90, by_itself=by_itself)
        return self.requests

    def close(self) -> None:
        """End it at once."""
        for program in self._programs:
            program.kill()

    def _start(self, client: Host, plan: dict[str, Any]) -> None:
        began: list[float] = []

        def told(line: dict[str, Any]) -> None:
            if "started" in line:
                began.append(self._clocks.here(client, line["started"]))
            else:
                self.requests.append(_request(line, began[0]))

        command = python(client, load, "-")
        self._programs.append(
            Program(f"the load from {client.name}", command, plan=plan, told=told)
        )


class Builds:
    """Real go builds on one client, one after the other."""

    def __init__(self, client: Host, clocks: Clocks, modules: Sequence[Sequence[str]]) -> None:
        """Start them; HostError, also where there is no go command."""
        self.builds: list[Build] = []
        self._client = client
        self._clocks = clocks
        plan = {"modules": modules, "pause_seconds": 0.5, "timeout_seconds": 60}
        self._program = Program(
            f"the builds on {client.name}", python(client, builds), plan=plan, told=self._note
        )
        try:
            self.about = self._program.first()
        except HostError:
            self._program.kill()
            raise

    def end(self) -> list[Build]:
        """Let the last one end, and give all; HostError."""
        self._program.end(timeout=90)
        return self.builds

    def close(self) -> None:
        """End them at once."""
        self._program.kill()

    def _note(self, line: Mapping[str, Any]) -> None:
        if "ok" in line:
            here = self._clocks.here
            self.builds.append(
                Build(
                    started=here(self._client, line["started"]),
                    ended=here(self._client, line["ended"]),
                    ok=line["ok"],
                    said=line["said"],
                )
            )


def _request(line: Mapping[str, Any], began: float) -> Request:
    names = ("url", "error", "wrong_bytes", "sha256", "cache", "backend", "source", "stale")
    return Request(
        due=began + line["due"],
        ended=began + line["ended"],
        mutable=str(line["url"]).endswith(MUTABLE),
        **{name: line[name] for name in names},
    )
