"""What a drill watches, with this machine as edge and client."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import FakeUpstream, Reply

from modhaven.drill import observe, watch
from modhaven.drill.hosts import Host, HostError
from modhaven.drill.observe import Builds, Clocks, Edges, Loads

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Host(name="here", address="127.0.0.1", groups=frozenset({"edges", "clients"}))
BODY = b"ready\n"


@pytest.fixture(autouse=True)
def _no_other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "command", lambda _self, argv, **_: list(argv))


@pytest.fixture
def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "status.json"
    monkeypatch.setattr(observe, "STATUS", str(path))
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


def test_clocks_of_this_machine_agree_with_it() -> None:
    clocks = Clocks([HERE])
    assert abs(clocks.ahead["here"]) < 1
    now = time.time()
    assert abs(clocks.here(HERE, now) - now) < 1


def test_a_host_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "command", lambda _self, _: ["sh", "-c", "echo no route >&2"])
    with pytest.raises(HostError, match=r"here cannot be reached as root over ssh.*: no route"):
        Clocks([HERE])


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


def test_a_load_tells_each_request_while_it_runs(fake: FakeUpstream) -> None:
    fake.default = Reply(body=BODY, headers={"X-Modhaven-Source": "goproxy.io"})
    targets = [
        {"url": f"{fake.url}/m/@v/v1.0.0.mod", "sha256": hashlib.sha256(BODY).hexdigest()},
        {"url": f"{fake.url}/m/@v/list", "sha256": ""},
    ]
    plan = {"targets": targets, "allowed": ["127.0.0.1"], "rate": 40, "seconds": 0.5}
    loads = Loads([HERE], Clocks([HERE]), lambda _: plan)
    try:
        requests = loads.end(by_itself=True)
    finally:
        loads.close()
    assert len(requests) == 20
    assert {one.error for one in requests} == {""}
    assert {one.source for one in requests} == {"goproxy.io"}
    assert sum(one.mutable for one in requests) == 10
    assert abs(requests[0].due - time.time()) < 30


def test_a_client_without_the_go_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(
        Host, "command", lambda _self, argv, **_: ["/usr/bin/python3", *list(argv)[1:]]
    )
    with pytest.raises(HostError, match="there is no go command"):
        Builds(HERE, Clocks([]), [["rsc.io/quote@v1.5.2"]])
