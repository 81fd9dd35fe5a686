"""Runs ``go mod download`` over and over, each time with an empty module cache, as builds do.

Standard library only, no import of its own: its text runs on any client, in a login shell, whose
GOPROXY is the machine's. The plan is the first line of standard input, and it ends with its input:

    {"modules": [["rsc.io/quote@v1.5.2"], …], "pause_seconds": 0.5, "timeout_seconds": 120}

The first line is ``{"goproxy": …, "go": …}``, then one for each build: ``{"started", "ended", "ok",
"said"}``, moments in seconds since the epoch, ``said`` the go command's words when it failed.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

MOST_BUILDS = 2000


def go(*words: str, timeout: float, cwd: str | None = None, cache: str = "") -> tuple[bool, str]:
    """Run the go command; give whether it succeeded, and what it said."""
    own = {"GOMODCACHE": cache, "GOFLAGS": "-modcacherw"} if cache else {}
    try:
        done = subprocess.run(  # noqa: S603 - what this is for
            ["go", *words],  # noqa: S607 - the client's own
            cwd=cwd,
            env={**os.environ, **own},
            check=False,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired:
        return False, f"go {words[0]} did not end within {timeout:g} s"
    return done.returncode == 0, done.stdout.strip()


def build(modules: list[str], timeout: float) -> dict[str, object]:
    """Download modules with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="modhaven-drill-") as folder:
        cache = f"{folder}/cache"
        go("mod", "init", "example.com/drill", timeout=timeout, cwd=folder, cache=cache)
        started = time.time()
        ok, said = go("mod", "download", *modules, timeout=timeout, cwd=folder, cache=cache)
        ended = time.time()
    return {"started": started, "ended": ended, "ok": ok, "said": "" if ok else said[-2000:]}


def tell(line: dict[str, object]) -> None:
    """Print one line of JSON, now."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Build until standard input ends."""
    plan = json.loads(sys.stdin.readline())
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    try:
        version = go("env", "GOVERSION", timeout=30)[1]
    except FileNotFoundError:
        sys.stderr.write("there is no go command\n")
        return 2
    tell({"goproxy": go("env", "GOPROXY", timeout=30)[1], "go": version})
    for modules in itertools.islice(itertools.cycle(plan["modules"]), MOST_BUILDS):
        tell(build(modules, plan["timeout_seconds"]))
        if ended.wait(plan["pause_seconds"]):
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
