"""Commands on the lab's hosts, as root, through lxc and not through the network.

A fault may have cut the network or hung sshd; ``lxc-attach`` still gets in. Lab hosts of other
Vagrant providers are not reached this way: the tests that break things need the lxc provider.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from tests.lab.inventory import lab

if TYPE_CHECKING:
    from collections.abc import Callable

BOOT_SECONDS = 90.0


def _attach(host: str, argv: tuple[str, ...]) -> list[str]:
    return ["lxc-attach", "--name", host, "--clear-env", "--", *argv]


def run(
    host: str, *argv: str, stdin: str = "", check: bool = True, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a command on a host and give its output.

    Raises subprocess.CalledProcessError (``check``) and TimeoutExpired after ``timeout`` seconds.
    """
    return subprocess.run(
        _attach(host, argv),
        input=stdin,
        check=check,
        timeout=timeout,
        capture_output=True,
        text=True,
    )


def start(host: str, *argv: str) -> subprocess.Popen[str]:
    """Start a command on a host, its output in pipes; the caller ends it."""
    return subprocess.Popen(
        _attach(host, argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def put(host: str, path: str, content: str) -> None:
    """Write a text file on a host."""
    run(host, "tee", path, stdin=content)


def unit_property(host: str, unit: str, name: str) -> str:
    """Give a property of a systemd unit, as ``systemctl show`` has it."""
    return run(host, "systemctl", "show", f"--property={name}", "--value", unit).stdout.strip()


def is_running(host: str) -> bool:
    """Tell whether the host's container runs."""
    done = subprocess.run(
        ["lxc-info", "--name", host, "--state", "--no-humanize"],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() == "RUNNING"


def link(host: str) -> str:
    """Give the outer end of the host's network cable (veth); raises LookupError for none."""
    done = subprocess.run(["lxc-info", "--name", host], check=True, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith("Link:"):
            return line.removeprefix("Link:").strip()
    raise LookupError(f"{host} has no network link: its container does not run")


def wait_until(
    what: str, condition: Callable[[], bool], timeout: float, every: float = 0.1
) -> None:
    """Wait until the condition holds; raises TimeoutError that says what was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}, in vain")
        time.sleep(every)


def ssh_answers(host: str) -> bool:
    """Tell whether sshd on the host greets."""
    address = lab().hosts[host].address
    with contextlib.suppress(OSError), socket.create_connection((address, 22), 1) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def wait_for_boot(host: str) -> None:
    """Wait until ssh answers and systemd has started what it starts; raises TimeoutError."""
    wait_until(f"ssh on {host}", lambda: ssh_answers(host), BOOT_SECONDS)
    # "degraded" is an end of the boot too: the tests look at the services they care for.
    run(host, "systemctl", "is-system-running", "--wait", check=False, timeout=BOOT_SECONDS)
