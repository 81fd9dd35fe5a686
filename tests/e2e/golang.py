"""The real go command on the lab's client, as a developer there runs it."""

from __future__ import annotations

import shlex
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

GO_SECONDS = 120.0

PROGRAM = """\
package main

import (
	"fmt"

	"rsc.io/quote"
)

func main() { fmt.Println(quote.Hello()) }
"""


@dataclass(frozen=True, kw_only=True)
class GoRun:
    """How a go command ended: wall time in seconds, both outputs in one text."""

    ok: bool
    seconds: float
    output: str


def shell(client: str, script: str, *, timeout: float = GO_SECONDS) -> GoRun:
    """Run a script as a login shell of the user vagrant, whose environment is the machine's own."""
    begun = time.monotonic()
    done = subprocess.run(
        [
            *("lxc-attach", "--name", client, "--clear-env", "--", "su", "--login", "vagrant"),
            *("--command", f"bash -euc {shlex.quote(script)} 2>&1"),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
    return GoRun(
        ok=done.returncode == 0,
        seconds=time.monotonic() - begun,
        output=done.stdout + done.stderr,
    )


def download(client: str, *modules: str, timeout: float = GO_SECONDS) -> GoRun:
    """Run `go mod download -x` of MODULE@VERSIONs with an empty module cache."""
    script = f"""
        work=$(mktemp -d); trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT; cd "$work"
        export GOMODCACHE="$work/modcache" GOFLAGS=-modcacherw
        go mod init example.com/try
        go mod download -x {" ".join(map(shlex.quote, modules))}
    """
    return shell(client, script, timeout=timeout)


def downloads(
    client: str, *modules: str, until: Callable[[], bool], timeout: float = GO_SECONDS
) -> list[GoRun]:
    """Run ``download`` over and over until ``until()`` says that it is enough."""
    runs = []
    while not until():
        runs.append(download(client, *modules, timeout=timeout))
    return runs


def download_and_sum(client: str, *modules: str) -> tuple[GoRun, dict[str, str]]:
    """Download MODULE@VERSIONs cold; give the SHA-256 of each .mod and .zip by its path on a proxy.

    The go command keeps an .info in its own words.
    """
    marker = "--- sums"
    run = shell(
        client,
        f"""
        work=$(mktemp -d); trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT; cd "$work"
        export GOMODCACHE="$work/modcache" GOFLAGS=-modcacherw
        go mod init example.com/try
        go mod download {" ".join(map(shlex.quote, modules))}
        echo {shlex.quote(marker)}
        cd modcache/cache/download
        find . -path ./sumdb -prune -o -type f -regex '.*\\.\\(mod\\|zip\\)' -print0 |
            xargs -0 sha256sum
        """,
    )
    output, _, sums = run.output.partition(marker)
    pairs = (line.split("  .", 1) for line in sums.strip().splitlines())
    got = {path: digest for digest, path in pairs}
    return GoRun(ok=run.ok, seconds=run.seconds, output=output), got


def build(client: str, timeout: float = GO_SECONDS) -> GoRun:
    """Build and run a program that needs rsc.io/quote, with an empty module cache."""
    script = f"""
        work=$(mktemp -d); trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT; cd "$work"
        export GOMODCACHE="$work/modcache" GOFLAGS=-modcacherw
        go mod init example.com/try
        cat > main.go <<'PROGRAM'\n{PROGRAM}\nPROGRAM
        go get rsc.io/quote@v1.5.2
        go build -o try .
        LANG=en ./try
    """
    return shell(client, script, timeout=timeout)
