"""The hosts of the inventory, and commands on them over ssh."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CONNECT = (
    "-oBatchMode=yes", "-oConnectTimeout=5", "-oServerAliveInterval=2", "-oServerAliveCountMax=5",
)  # fmt: skip
_LINES_KEPT = 100
# A user who may become root without a password, or root itself.
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec "$@"; else exec sudo -n -- "$@"; fi'


class HostError(Exception):
    """A host could not be reached, or a command on it failed; one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host; ``ssh`` is the command line up to the destination, empty for this machine."""

    name: str
    address: str
    groups: frozenset[str] = frozenset()
    backup: bool = False
    ssh: tuple[str, ...] = ()

    @property
    def is_node(self) -> bool:
        """Whether it is an edge or a backend: there the drill is root, elsewhere it need not be."""
        return bool(self.groups & {"edges", "backends"})

    def command(self, argv: Sequence[str], *, root: bool = True) -> list[str]:
        """Give the local command that runs ``argv`` there, as root or as the login shell."""
        if root:
            words = ["sh", "-c", _AS_ROOT, "sh", *argv]
        else:
            words = ["bash", "-lc", shlex.join(["exec", *argv])]
        return [*_with_options(self.ssh), shlex.join(words)] if self.ssh else words

    def run(self, *argv: str, timeout: float = 30, root: bool = True) -> str:
        """Give the output of a command; raises HostError when it fails or takes longer."""
        what = f"{self.name}: {argv[0]}"
        try:
            done = subprocess.run(  # noqa: S603 - what the drill is for
                self.command(argv, root=root),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                text=True,
                timeout=timeout,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise HostError(f"{what} did not end within {timeout:g} s") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["without a word"]
            raise HostError(f"{what} failed with {done.returncode}: {said[-1]}")
        return done.stdout


def _with_options(ssh: tuple[str, ...]) -> list[str]:
    return [ssh[0], *_CONNECT, *ssh[1:]]


class Program:
    """A program that runs until its standard input ends, and tells in lines of JSON.

    ``told`` is called with each line's object, in a thread of its own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        plan: object = None,
        told: Callable[[dict[str, Any]], object] | None = None,
        cwd: str | None = None,
    ) -> None:
        """Start it, and give it ``plan`` as the first line. OSError."""
        self.name = name
        self._told = told
        self._lines: list[dict[str, Any]] = []
        self._ended = False
        self._heard = threading.Condition()
        # Out of reach of the terminal's Ctrl-C: it must live to undo what it did.
        self._process = subprocess.Popen(  # noqa: S603 - as above
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            start_new_session=True,
        )
        assert self._process.stdin  # noqa: S101 - for the type checker
        self._input = self._process.stdin
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._listen, daemon=True),
            threading.Thread(target=self._listen_to_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        if plan is not None:
            self.tell(json.dumps(plan))

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def tell(self, line: str) -> None:
        """Give it a line of input."""
        with contextlib.suppress(BrokenPipeError):  # its own words say why, see first()
            self._input.write(line + "\n")
            self._input.flush()

    def first(self, timeout: float = 30) -> dict[str, Any]:
        """Wait for its first line; raises HostError when none comes."""
        return self._wait(lambda lines: lines[0] if lines else None, "anything", timeout)

    def wait_for(self, key: str, timeout: float) -> Any:
        """Wait for a line with a key among its first hundred, and give its value; HostError."""
        line = self._wait(
            lambda lines: next((line for line in lines if key in line), None), f"{key!r}", timeout
        )
        return line[key]

    def has_said(self, key: str) -> bool:
        """Whether a line with a key was among its first hundred."""
        with self._heard:
            return any(key in line for line in self._lines)

    def _wait(
        self,
        find: Callable[[list[dict[str, Any]]], dict[str, Any] | None],
        what: str,
        timeout: float,
    ) -> dict[str, Any]:
        with self._heard:
            self._heard.wait_for(lambda: self._ended or find(self._lines) is not None, timeout)
            found = find(self._lines)
            ended = self._ended
        if found is not None:
            return found
        if ended:
            raise HostError(f"{self.name} ended before it said {what}: {self._last_words()}")
        raise HostError(f"{self.name} did not say {what} within {timeout:g} s")

    def end(self, timeout: float = 60, *, by_itself: bool = False) -> None:
        """Let it end; raises HostError when it does not, or does so with an error."""
        if not by_itself:
            self._close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise HostError(f"{self.name} did not end within {timeout:g} s") from None
        self._close()
        self._join()
        if self._process.returncode:
            raise HostError(f"{self.name} failed: {self._last_words()}")

    def kill(self) -> None:
        """End it at once, where it still runs."""
        if self.is_running:
            self._process.kill()
        self._process.wait()
        self._close()
        self._join()

    def _close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._input.close()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(5)

    def _last_words(self) -> str:
        self._threads[1].join(5)
        words = "".join(self._errors).strip().splitlines()
        return words[-1] if words else f"exit status {self._process.poll()}"

    def _listen(self) -> None:
        assert self._process.stdout  # noqa: S101 - for the type checker
        with self._process.stdout as lines:
            for text in lines:
                try:
                    line = json.loads(text)
                except ValueError:  # cut by a dying connection
                    continue
                if self._told is not None:
                    self._told(line)
                with self._heard:
                    if len(self._lines) < _LINES_KEPT:
                        self._lines.append(line)
                    self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()

    def _listen_to_errors(self) -> None:
        assert self._process.stderr  # noqa: S101 - for the type checker
        with self._process.stderr as lines:
            for line in lines:
                self._errors[:] = [*self._errors[-20:], line]
