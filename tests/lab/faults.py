"""Faults of the lab that undo themselves: ``with link_down("edge1"): …``.

Each fault writes down how it is undone before it is made, in /run/modhaven-lab-faults, and is
undone when its block ends, whatever happened in it. ``restore_all`` undoes what a killed run left.
Run as root on the machine that holds the lab. As a program: ``python3 -m tests.lab.faults``
restores everything.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab import remote
from tests.lab.inventory import lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORDS = Path("/run/modhaven-lab-faults")
CONTROL_PORT = 8099
_HOSTS_COPY = "/etc/hosts.before-fault"


@contextlib.contextmanager
def mirror_fault(name: str, kind: str, **options: object) -> Iterator[None]:
    """Make a mirror, by its public name, ``down``, ``blackhole``, ``delay``, ``status``, …

    Options: ``seconds``, ``code``, ``match``, ``count``; see tests/lab/mirror_faults.py.
    """
    with _undone_by("clear_mirror", name):
        control(name, "PUT", f"/faults/{name}", {"kind": kind, **options})
        yield


@contextlib.contextmanager
def killed(host: str, *units: str) -> Iterator[None]:
    """Kill every process of the units (SIGKILL); systemd's Restart= may act at once.

    At the end the units are started where they do not run.
    """
    with _undone_by("start_units", host, *units):
        remote.run(host, "systemctl", "kill", "--signal=SIGKILL", *units)
        yield


@contextlib.contextmanager
def hung(host: str, *units: str) -> Iterator[None]:
    """Stop every process of the units where it is (SIGSTOP): the port accepts, nobody answers."""
    with _undone_by("continue_units", host, *units):
        remote.run(host, "systemctl", "kill", "--signal=SIGSTOP", *units)
        yield


@contextlib.contextmanager
def service_stopped(host: str, *units: str) -> Iterator[None]:
    """Stop units properly; name a socket unit too, or the next request starts its service."""
    with _undone_by("start_units", host, *units):
        remote.run(host, "systemctl", "stop", *units)
        yield


@contextlib.contextmanager
def host_stopped(host: str) -> Iterator[None]:
    """Kill a whole host, as a power cut does; at the end it is booted and waited for."""
    with _undone_by("start_host", host):
        _stop_host(host)
        yield


def power_cycle(host: str) -> None:
    """Boot a host, stopped or not, cut off or not."""
    if remote.is_running(host):
        _stop_host(host)
    _start_host(host)


@contextlib.contextmanager
def link_down(host: str) -> Iterator[None]:
    """Pull a host's network cable."""
    with _undone_by("link_up", host):
        _set_link(host, "down")
        yield


@contextlib.contextmanager
def wrong_dns(host: str, name: str, address: str) -> Iterator[None]:
    """Make a name resolve to another address on one host (its /etc/hosts), one name at a time.

    Raises RuntimeError when another such fault is on there.
    """
    if remote.run(host, "test", "-e", _HOSTS_COPY, check=False).returncode == 0:
        raise RuntimeError(f"/etc/hosts of {host} is already under a fault: restore_all() first")
    with _undone_by("restore_hosts_file", host):
        before = remote.run(host, "cat", "/etc/hosts").stdout
        remote.run(host, "cp", "--preserve", "/etc/hosts", _HOSTS_COPY)
        lines = [
            line if line.startswith("#") else " ".join(w for w in line.split() if w != name)
            for line in before.splitlines()
        ]
        remote.put(host, "/etc/hosts", "\n".join([f"{address} {name}", *lines]) + "\n")
        yield


def restore_all() -> None:
    """Undo every fault of this or an earlier run: mirrors, units, hosts, cables, names."""
    for host in lab().hosts:
        if not remote.is_running(host):
            _start_host(host)
        _set_link(host, "up")
    for record in sorted(RECORDS.glob("*.json")):
        undo, *arguments = json.loads(record.read_text())
        if undo == "clear_mirror" or arguments[0] in lab().hosts:
            _UNDO[undo](*arguments)
        record.unlink(missing_ok=True)
    for mirror in lab().group("mirrors"):
        control(mirror.variables["mirror_names"][0], "DELETE", "/faults")


def requests_seen(name: str) -> list[dict[str, Any]]:
    """Give the requests a mirror got under a public name since ``forget_requests``.

    Each is ``{"path", "status", "fault", "time"}``; status 0 is a request that got no answer.
    """
    seen: list[dict[str, Any]] = control(name, "GET", f"/requests/{name}")[name]
    return seen


def forget_requests() -> None:
    """Empty the log of requests of every mirror."""
    for mirror in lab().group("mirrors"):
        control(mirror.variables["mirror_names"][0], "DELETE", "/requests")


def control(name: str, method: str, path: str, data: object = None) -> Any:
    """Ask the control API of the mirror of a public name; raises RuntimeError if it refuses."""
    address = lab().mirror_of(name).address
    with contextlib.closing(http.client.HTTPConnection(address, CONTROL_PORT, timeout=10)) as http_:
        http_.request(method, path, json.dumps(data))
        answer = http_.getresponse()
        body = json.loads(answer.read())
    if answer.status != 200:
        raise RuntimeError(
            f"{method} {path} on {address}:{CONTROL_PORT} gave {answer.status}: {body}"
        )
    return body


@contextlib.contextmanager
def _undone_by(undo: str, *arguments: str) -> Iterator[None]:
    RECORDS.mkdir(mode=0o700, exist_ok=True)
    record = RECORDS / f"{uuid.uuid4().hex}.json"
    record.write_text(json.dumps([undo, *arguments]))
    try:
        yield
    finally:
        _UNDO[undo](*arguments)
        record.unlink(missing_ok=True)


def _clear_mirror(name: str) -> None:
    control(name, "DELETE", f"/faults/{name}")


def _start_units(host: str, *units: str) -> None:
    # A unit killed often counts as failed and would refuse to start.
    remote.run(host, "systemctl", "reset-failed", *units, check=False)
    remote.run(host, "systemctl", "start", *units)


def _continue_units(host: str, *units: str) -> None:
    remote.run(host, "systemctl", "kill", "--signal=SIGCONT", *units)


def _stop_host(host: str) -> None:
    subprocess.run(["lxc-stop", "--name", host, "--kill"], check=True, capture_output=True)


def _start_host(host: str) -> None:
    if not remote.is_running(host):
        subprocess.run(["lxc-start", "--name", host, "--daemon"], check=True, capture_output=True)
    remote.wait_for_boot(host)


def _set_link(host: str, state: str) -> None:
    subprocess.run(["ip", "link", "set", remote.link(host), state], check=True, capture_output=True)


def _link_up(host: str) -> None:
    _set_link(host, "up")


def _restore_hosts_file(host: str) -> None:
    script = f"[ ! -e {_HOSTS_COPY} ] || {{ cat {_HOSTS_COPY} > /etc/hosts && rm {_HOSTS_COPY}; }}"
    remote.run(host, "sh", "-c", script)


_UNDO: dict[str, Callable[..., None]] = {
    "clear_mirror": _clear_mirror,
    "start_units": _start_units,
    "continue_units": _continue_units,
    "start_host": _start_host,
    "link_up": _link_up,
    "restore_hosts_file": _restore_hosts_file,
}


if __name__ == "__main__":
    restore_all()
    sys.stdout.write("lab: every fault is undone\n")
