"""Runs the failover drill on the controller, and shows its lines when they come.

A module's output is shown when it has ended; a drill takes minutes. The drill has a session of its
own, and its standard input is a pipe from here: when this playbook is interrupted or killed, the
pipe ends, and the drill undoes what it did.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible has no type information
    """`plan`: what app/modhaven/drill/plan.py reads."""

    _VALID_ARGS = frozenset({"plan"})

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.check_mode:
            return result | {"skipped": True, "msg": "A drill changes things: not in check mode."}
        plan = self._task.args["plan"]
        display = Display()
        with subprocess.Popen(
            [sys.executable, "-m", "modhaven.drill"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(plan["root"]) / "app")},
            start_new_session=True,
        ) as process:
            assert process.stdin  # noqa: S101 - for the type checker
            assert process.stdout  # noqa: S101 - for the type checker
            process.stdin.write(json.dumps(plan) + "\n")
            process.stdin.flush()
            threading.Thread(
                target=_end_with_playbook, args=(os.getppid(), process.stdin), daemon=True
            ).start()
            for line in process.stdout:
                display.display(line.rstrip("\n"))
            status = process.wait()
        if status:
            result["failed"] = True
            result["msg"] = {
                1: "A target was missed, or the drill did not come to its end: see above.",
                2: "Nothing was done: see above.",
            }.get(status, f"The drill ended with exit status {status}: see above.")
        return result


def _end_with_playbook(playbook: int, pipe: IO[str]) -> None:
    """End the pipe when the playbook is gone: this process, a worker of it, lives on by itself."""
    while os.getppid() == playbook:
        time.sleep(0.5)
    pipe.close()
