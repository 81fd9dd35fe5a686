"""Runs app/modhaven/drill/load.py on a host of the lab while a test breaks things."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab import remote

from modhaven.drill import load as load_program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

_PROGRAM = "/tmp/modhaven-load.py"  # noqa: S108 (a lab host's own /tmp)
_PLAN = "/tmp/modhaven-load.json"  # noqa: S108


class RunningLoad:
    """A load that was started; ``result`` waits for its end."""

    def __init__(self, host: str, process: subprocess.Popen[str], timeout: float) -> None:
        self._host = host
        self._process = process
        self._timeout = timeout
        self._result: dict[str, Any] | None = None

    def result(self) -> dict[str, Any]:
        """Give the load's figures (see load.summary); raises RuntimeError when it could not run."""
        if self._result is None:
            out, err = self._process.communicate(timeout=self._timeout)
            if self._process.returncode != 0:
                raise RuntimeError(f"the load ended with {self._process.returncode}: {err.strip()}")
            self._result = json.loads(out)
        return self._result

    def enough(self) -> dict[str, Any]:
        """Let it send no more requests, and give its figures."""
        # Brackets, so that the pattern does not find itself.
        remote.run(self._host, "pkill", "-TERM", "-f", f"^python3 [{_PROGRAM[0]}]{_PROGRAM[1:]}")
        return self.result()

    def stop(self) -> None:
        """End the load at once, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def load_from(host: str, plan: Mapping[str, Any]) -> Iterator[RunningLoad]:
    """Start a plan (see load.py) on a host; the block runs meanwhile and asks for ``result()``.

    Leaving the block without having asked ends the load.
    """
    remote.put(host, _PROGRAM, Path(load_program.__file__).read_text())
    remote.put(host, _PLAN, json.dumps(plan))
    process = remote.start(host, "timeout", "900", "python3", _PROGRAM, _PLAN)
    timeout = float(plan["seconds"]) + float(plan.get("timeout_seconds", 10)) + 60
    load = RunningLoad(host, process, timeout)
    try:
        yield load
    finally:
        load.stop()
