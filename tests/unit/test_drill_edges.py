"""What a drill sees of edges, with this machine as one of them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modhaven.drill import edges as edges_module
from modhaven.drill import watch
from modhaven.drill.edges import Edges
from modhaven.drill.hosts import Host
from modhaven.drill.observe import Clocks

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Host(name="here", address="127.0.0.1", groups=frozenset({"edges"}))
UP = frozenset({"backend1"})


@pytest.fixture(autouse=True)
def _no_other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "command", lambda _self, argv, **_: list(argv))


@pytest.fixture
def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "status.json"
    monkeypatch.setattr(edges_module, "STATUS", str(path))
    return path


def write(path: Path, **states: str) -> None:
    servers = [
        {"name": name, "state": state, "asked": state == "up"} for name, state in states.items()
    ]
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"published": True, "servers": servers}))
    new.replace(path)


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def test_whole_is_waited_for_and_dated_by_what_the_edge_saw(
    status: Path, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(status, backend1="down", backend2="up")
    up = frozenset({"backend1", "backend2"})
    edges = Edges([HERE], Clocks([HERE]), vip="127.0.0.1", port=port)
    try:
        assert edges.holders() == ["here"]
        assert edges.wait_until_whole(up=up, seconds=0.3) is None
        before = time.time()
        write(status, backend1="up", backend2="up")
        since = edges.wait_until_whole(up=up, seconds=20)
        assert since is not None
        assert before - 0.1 < since < time.time() + 0.1
        # Watched anew, as an edge that was gone.
        before = time.time()
        since = edges.wait_until_whole(up=up, again=["here"], seconds=20)
        assert since is not None
        assert since > before
        # It goes down only after somebody has looked.
        boot = edges._last["here"].boot
        later = iter([HERE, HERE])

        def reboot(_clocks: Clocks, _host: Host, moment: float) -> float:
            if next(later, None) is None:
                monkeypatch.setattr(watch, "__file__", str(rebooted))
            return moment

        rebooted = tmp_path / "watch.py"
        text = Path(watch.__file__).read_text()
        rebooted.write_text(text.replace('f"{machine}/{began}"', '"another"'))
        monkeypatch.setattr(Clocks, "here", reboot)
        since = edges.wait_until_whole(up=up, again=["here"], rebooted=["here"], seconds=20)
        assert since is not None
        assert edges._last["here"].boot == "another" != boot
    finally:
        edges.close()
    assert [sorted(look.asked) for look in edges.looks][:2] == [["backend2"], sorted(up)]


def test_a_backup_that_rests_is_ready(status: Path, port: int) -> None:
    """As where requests are spread by hash."""
    write(status, backend1="up", backend2="resting")
    edges = Edges([HERE], Clocks([HERE]), vip="127.0.0.1", port=port)
    try:
        assert edges.wait_until_whole(up=frozenset({"backend1", "backend2"}), seconds=20)
    finally:
        edges.close()


def test_a_watch_that_died_is_begun_anew(status: Path, port: int) -> None:
    write(status, backend1="up")
    edges = Edges([HERE], Clocks([HERE]), vip="", port=port)
    try:
        assert edges.wait_until_whole(up=UP, seconds=20) is not None
        # Its last look says that all is well.
        edges._programs["here"]._process.kill()
        edges._programs["here"]._process.wait()
        write(status, backend1="down")
        assert edges.wait_until_whole(up=UP, seconds=2) is None
        assert edges.last()["here"].up == frozenset()
        began = time.time()
        write(status, backend1="up")
        since = edges.wait_until_whole(up=UP, seconds=20)
        assert since is not None
        assert since > began - 0.1
    finally:
        edges.close()


def test_before_the_vip_moves_another_edge_must_be_able_to_take_it(
    status: Path, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(status, backend1="up")
    pid, stay_out = tmp_path / "keepalived.pid", tmp_path / "vip-stay-out"
    monkeypatch.setattr(edges_module, "KEEPALIVED", str(pid))
    monkeypatch.setattr(edges_module, "STAY_OUT", str(stay_out))
    program = tmp_path / "keepalived"
    program.symlink_to(shutil.which("sleep") or "")
    other = Host(name="other", address="127.0.0.1", groups=frozenset({"edges"}))
    stay_out.touch()
    edges = Edges([HERE, other], Clocks([]), vip="127.0.0.1", port=port)
    note = edges._note
    # Both are this machine: only one of them shall have the address.
    monkeypatch.setattr(
        edges, "_note", lambda edge, line: note(edge, {**line, "vip": edge.name == "here"})
    )
    with subprocess.Popen([program, "60"]) as keepalived:
        try:
            pid.write_text(f"{keepalived.pid}\n")
            for name in list(edges._programs):
                edges._watch_no_more(name)
            assert edges.wait_until_whole(up=UP, seconds=20) is not None
            assert edges.wait_until_whole(up=UP, successor=True, seconds=1) is None
            stay_out.unlink()
            assert edges.wait_until_whole(up=UP, successor=True, seconds=20) is not None
        finally:
            keepalived.kill()
            edges.close()
