"""Faults undo what they did, and nothing else, whenever they end."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from modhaven.drill import faults
from modhaven.drill.hosts import Host, HostError

if TYPE_CHECKING:
    from pathlib import Path

    from modhaven.drill.hosts import Program

LOCAL = Host(name="here", address="127.0.0.1", groups=frozenset({"backends"}))


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that come before the system's; a host has systemd, here it is not asked.

    The script that its timer would run is in `timer`.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    write(folder / "systemd-run", f'for last; do :; done; printf %s "$last" > {tmp_path}/timer')
    write(folder / "systemctl", f"echo $* >> {tmp_path}/systemctl")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(Host, "command", lambda _self, argv: list(argv))
    return folder


def write(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def hold(kind: str, store: str = "/srv") -> Program:
    program = faults.hold_on(LOCAL, kind, "primary", store=store, vip="10.0.3.100")
    program.wait_for("ready", 10)
    return program


@pytest.mark.usefixtures("programs")
def test_a_fault_is_undone_when_its_maker_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "broken"
    scripts = faults.Scripts(make=f"touch {mark}", undo=f"rm {mark}")
    monkeypatch.setitem(faults.HOST_FAULTS, "mark", scripts)
    program = hold("mark")
    assert not mark.exists()
    program.tell("go")
    program.wait_for("made", 10)
    assert mark.exists()
    assert not program.has_said("undone")
    program.end(10)
    assert not mark.exists()
    assert program.has_said("undone")


def test_a_fault_that_nobody_lets_go_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "broken"
    monkeypatch.setitem(faults.HOST_FAULTS, "mark", faults.Scripts(make=f"touch {mark}"))
    monkeypatch.setattr(Host, "command", lambda _self, argv: list(argv))
    hold("mark").end(10)
    assert not mark.exists()


@pytest.mark.usefixtures("programs")
def test_a_fault_that_cannot_be_undone_is_left_to_the_timer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = faults.Scripts(make=":", undo="echo it does not start >&2; false")
    monkeypatch.setitem(faults.HOST_FAULTS, "stuck", scripts)
    program = hold("stuck")
    with pytest.raises(HostError, match="stuck on here failed: it does not start"):
        program.end(10)
    assert not program.has_said("undone")
    assert not (tmp_path / "systemctl").exists(), "the timer was stopped"


def test_a_backend_that_is_an_edge_too_keeps_its_nginx() -> None:
    both = Host(name="go1", address="10.0.3.1", groups=frozenset({"edges", "backends"}))
    assert faults.units_of(both, "primary", "kill") == "modhaven.service"
    assert faults.units_of(both, "primaries", "stop") == "modhaven.socket modhaven.service"
    assert faults.units_of(both, "vip_master", "kill") == "nginx.service"
    assert faults.units_of(LOCAL, "primary", "kill") == "nginx.service modhaven.service"


def fails_and_is_undone(program: Program, words: str) -> None:
    program.tell("go")
    with pytest.raises(HostError, match=words):
        program.wait_for("made", 10)
    with pytest.raises(HostError):
        program.end(10)
    assert program.has_said("undone")


# --- an edge that leaves


def test_an_edge_that_keeps_the_vip_was_not_made_to_leave(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_out = tmp_path / "vip-stay-out"
    own = faults.HOST_FAULTS["leave"]
    monkeypatch.setitem(
        faults.HOST_FAULTS,
        "leave",
        faults.Scripts(
            make=own.make.replace(faults.STAY_OUT, str(stay_out)),
            undo=own.undo.replace(faults.STAY_OUT, str(stay_out)),
        ),
    )
    write(programs / "timeout", "exit 124")
    fails_and_is_undone(hold("leave"), "before it said 'made': this edge has the VIP still")
    assert not stay_out.exists()
    asked = (tmp_path / "systemctl").read_text().splitlines()
    assert asked[:2] == ["restart keepalived.service", "start nginx.service modhaven.service"]


# --- a full disk, in a mount namespace of its own, where the store is a file system of its own

_NAMESPACE = ["unshare", "--map-root-user", "--mount"]
needs_namespaces = pytest.mark.skipif(
    subprocess.run([*_NAMESPACE, "true"], check=False, capture_output=True).returncode != 0,
    reason="this machine has no user namespaces",
)


@pytest.fixture
def store(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    del programs
    path = tmp_path / "a store"
    path.mkdir()
    around = (
        f"mount -t tmpfs own '{path}'; \"$@\"; status=$?;"
        f" findmnt -n -o SOURCE --mountpoint '{path}' > {tmp_path}/mounted; exit $status"
    )
    monkeypatch.setattr(
        Host, "command", lambda _self, argv: [*_NAMESPACE, "sh", "-c", around, "sh", *argv]
    )
    # Only hosts have that user.
    own = faults.HOST_FAULTS["full_disk"]
    make = own.make.replace("uid=modhaven,gid=modhaven", "uid=0,gid=0")
    monkeypatch.setitem(faults.HOST_FAULTS, "full_disk", faults.Scripts(make=make, undo=own.undo))
    return path


def mounted(tmp_path: Path) -> list[str]:
    return (tmp_path / "mounted").read_text().split()


@needs_namespaces
def test_a_disk_that_was_full_is_itself_again(store: Path, tmp_path: Path) -> None:
    make = faults.HOST_FAULTS["full_disk"].make
    look = f"{make}\nfindmnt -n -o SOURCE --mountpoint '{store}' > {tmp_path}/meanwhile"
    faults.HOST_FAULTS["full_disk"] = faults.Scripts(
        make=look, undo=faults.HOST_FAULTS["full_disk"].undo
    )
    program = hold("full_disk", str(store))
    program.tell("go")
    program.wait_for("made", 10)
    program.end(10)
    assert len((tmp_path / "meanwhile").read_text().split()) == 2
    assert mounted(tmp_path) == ["own"]


@needs_namespaces
def test_a_drill_that_ends_before_the_disk_is_full_leaves_the_store(
    store: Path, tmp_path: Path
) -> None:
    hold("full_disk", str(store)).end(10)
    assert mounted(tmp_path) == ["own"]


@needs_namespaces
def test_a_disk_that_cannot_be_filled_leaves_the_store(
    store: Path, programs: Path, tmp_path: Path
) -> None:
    program = hold("full_disk", str(store))
    # The file system that the store is was mounted before.
    write(programs / "mount", "echo no more mounts >&2; exit 32")
    fails_and_is_undone(program, "ended before it said 'made': no more mounts")
    assert mounted(tmp_path) == ["own"]


@needs_namespaces
def test_a_full_disk_is_undone_once_by_the_timer_and_the_end(store: Path, tmp_path: Path) -> None:
    own = faults.HOST_FAULTS["full_disk"]
    faults.HOST_FAULTS["full_disk"] = faults.Scripts(
        make=f'{own.make}\nsh -c "$(cat {tmp_path}/timer)"', undo=own.undo
    )
    program = hold("full_disk", str(store))
    program.tell("go")
    program.wait_for("made", 10)
    program.end(10)
    assert mounted(tmp_path) == ["own"]
