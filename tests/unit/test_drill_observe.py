"""A drill's clocks, load and builds, with this machine as client."""

from __future__ import annotations

import hashlib
import time

import pytest
from tests.conftest import FakeUpstream, Reply

from modhaven.drill import environment
from modhaven.drill.hosts import Host, HostError
from modhaven.drill.observe import Builds, Clocks, Loads

HERE = Host(name="here", address="127.0.0.1", groups=frozenset({"edges", "clients"}))
CLIENT = Host(name="client", address="127.0.0.1", groups=frozenset({"clients"}))
CONTROLLER = Host(name="controller", address="127.0.0.1")
BODY = b"ready\n"


@pytest.fixture(autouse=True)
def _no_other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "command", lambda _self, argv, **_: list(argv))


def test_clocks_of_this_machine_agree_with_it() -> None:
    clocks = Clocks([HERE])
    assert abs(clocks.ahead["here"]) < 1
    now = time.time()
    assert abs(clocks.here(HERE, now) - now) < 1


def test_a_host_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "command", lambda *_, **__: ["sh", "-c", "echo no route >&2"])
    with pytest.raises(HostError, match=r"here cannot be reached as root over ssh.*: no route"):
        Clocks([HERE])
    with pytest.raises(HostError, match=r"controller cannot be reached over ssh.*: no route"):
        Clocks([CONTROLLER])


def test_who_only_asks_need_not_be_root(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def command(host: Host, argv: list[str], *, root: bool = True) -> list[str]:
        asked.append((host.name, root))
        return list(argv)

    monkeypatch.setattr(Host, "command", command)
    Clocks([HERE, CLIENT, CONTROLLER])
    environment.of_host(CONTROLLER)
    assert asked == [
        ("here", True), ("client", False), ("controller", False), ("controller", False),
    ]  # fmt: skip
    assert environment.of_host(HERE)["cores"]
    assert asked[-1] == ("here", True)


def test_a_greeting_is_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    greets = ["sh", "-c", 'echo Welcome; "$@"', "sh"]
    monkeypatch.setattr(Host, "command", lambda _self, argv, **_: [*greets, *argv])
    assert abs(Clocks([CLIENT]).ahead["client"]) < 1


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
    assert {one.client for one in requests} == {"here"}
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
