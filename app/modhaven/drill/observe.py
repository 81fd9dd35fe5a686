"""Runs the load and the builds of a scenario, and tells what came of them on one clock."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modhaven.drill import builds, load
from modhaven.drill.figures import Build, Request
from modhaven.drill.hosts import Host, HostError, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MUTABLE = ("/@v/list", "/@latest")
_MOMENT = re.compile(r"[0-9]+\.[0-9]+")


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
                host.command(
                    ["sh", "-c", "while read -r _; do date +%s.%N; done"], root=host.is_node
                ),
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
    # A login shell may greet first.
    while line and process.stdout and not _MOMENT.fullmatch(line.strip()):
        line = process.stdout.readline()
    after = time.time()
    if not line:
        said = process.stderr.read().strip().splitlines() if process.stderr else []
        raise HostError(
            f"{host.name} cannot be reached {'as root ' if host.is_node else ''}over ssh, with a"
            f" key and without a password: {said[-1] if said else 'it said nothing'}"
        )
    ahead, uncertain = float(line) - (before + after) / 2, (after - before) / 2
    return uncertain, ahead if abs(ahead) > uncertain else 0.0


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
                self.requests.append(_request(line, began[0], client.name))

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


def _request(line: Mapping[str, Any], began: float, client: str) -> Request:
    names = ("url", "error", "wrong_bytes", "sha256", "cache", "backend", "source", "stale")
    return Request(
        client=client,
        due=began + line["due"],
        ended=began + line["ended"],
        mutable=str(line["url"]).endswith(MUTABLE),
        **{name: line[name] for name in names},
    )
