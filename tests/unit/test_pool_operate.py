"""What people and playbooks are told, by a pool manager whose backends do as the test says."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from modhaven import cli
from modhaven.pool import operate, status
from modhaven.pool.drains import Drains
from modhaven.pool.paths import Paths
from modhaven.pool.status import PoolStatus, ServerStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Edge:
    """Tells a status twenty times a second, of backends that are as ``change`` has them."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths.below(root)
        self.drains = Drains(self.paths.drained)
        self.paths.status.parent.mkdir(parents=True)
        self._root = root
        self._rows = {
            name: ServerStatus(name=name, ready=True, in_flight=0) for name in ("b1", "b2")
        }
        self._pool: dict[str, Any] = {"published": True}
        self._sees_drains = True
        self._stopped = threading.Event()
        self._timers: list[threading.Timer] = []
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._tell()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for timer in self._timers:
            timer.cancel()
            timer.join()
        if self._thread.ident is not None:
            self._thread.join()

    def change(self, name: str, **values: Any) -> None:
        self._rows[name] = replace(self._rows[name], **values)

    def pool(self, **values: Any) -> None:
        self._pool |= values

    def be_slow(self) -> None:
        """Have the manager not see yet who is drained from now on."""
        self._sees_drains = False

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        self._timers.append(threading.Timer(seconds, work))
        self._timers[-1].start()

    def ask(self, *words: str) -> tuple[int, float]:
        """Run ``modhaven pool``; return its exit status and the seconds it took."""
        begun = time.monotonic()
        code = cli.main(["pool", "--root", str(self._root), *words])
        return code, time.monotonic() - begun

    def _run(self) -> None:
        while not self._stopped.wait(0.05):
            self._tell()

    def _tell(self) -> None:
        now = time.time()
        drained = self.drains.all() if self._sees_drains else {}
        rows = []
        for row in self._rows.values():
            state = "up" if row.ready else "kept"
            rows.append(
                replace(
                    row,
                    state="drained" if row.name in drained else state,
                    asked=row.name not in drained,
                    in_flight_at=now,
                )
            )
        told = PoolStatus(time=now, servers=tuple(rows), **self._pool)
        status.write(self.paths.status, told)


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    monkeypatch.setattr(operate, "_POLL_SECONDS", 0.02)
    made = Edge(tmp_path)
    yield made
    made.stop()


def test_a_drain_ends_when_its_backend_is_let_in_again(
    edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    edge.change("b1", in_flight=1)
    edge.start()
    edge.later(0.5, lambda: edge.drains.remove("b1"))
    code, seconds = edge.ask("drain", "b1", "--wait", "20")
    assert (code, seconds < 5) == (1, True)
    said = capsys.readouterr()
    assert "b1 was let in again meanwhile" in said.err
    assert "answered all" not in said.out


def test_the_same_before_nginx_had_the_pool_without_it(
    edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    edge.pool(published=False)
    edge.start()
    edge.later(0.5, lambda: edge.drains.remove("b1"))
    code, seconds = edge.ask("drain", "b1", "--wait", "20")
    assert (code, seconds < 5) == (1, True)
    assert capsys.readouterr().err == "modhaven: b1 was let in again meanwhile\n"


def test_whom_somebody_has_just_drained_is_not_ready_to_stand_in(
    edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    edge.start()
    edge.be_slow()
    edge.drains.add("b2", "x")
    assert edge.ask("drain", "b1")[0] == 2
    assert "b1 is the only backend that is ready" in capsys.readouterr().err
    assert list(edge.drains.all()) == ["b2"]


def test_two_drains_at_once_leave_one(edge: Edge) -> None:
    edge.start()
    codes: list[int] = []
    with edge.drains.alone():
        both = [
            threading.Thread(target=lambda name=name: codes.append(edge.ask("drain", name)[0]))
            for name in ("b1", "b2")
        ]
        for one in both:
            one.start()
        time.sleep(0.3)
        assert edge.drains.all() == {}
    for one in both:
        one.join()
    assert sorted(codes) == [0, 2]
    assert len(edge.drains.all()) == 1


def test_one_that_is_silent_for_a_moment_is_waited_for(
    edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    edge.change("b1", in_flight=None, error="no answer within 0.8 s")
    edge.start()
    edge.later(0.5, lambda: edge.change("b1", ready=False))
    edge.later(1.0, lambda: edge.change("b1", in_flight=0))
    code, seconds = edge.ask("drain", "b1", "--wait", "20")
    assert (code, seconds >= 1) == (0, True)
    assert capsys.readouterr().out.endswith("b1 has answered all it was asked\n")


@pytest.mark.parametrize(
    ("state", "why"), [("ready", ""), ("not ready", " (no answer within 0.8 s)")]
)
def test_one_that_never_says_what_it_works_on_is_an_error_in_the_end(
    edge: Edge,
    capsys: pytest.CaptureFixture[str],
    state: str,
    why: str,
) -> None:
    edge.change("b1", in_flight=None, ready=state == "ready", error="no answer within 0.8 s")
    edge.start()
    assert edge.ask("drain", "b1", "--wait", "0.5")[0] == 1
    assert capsys.readouterr().err == (
        f"modhaven: b1 is drained, but does not say what it works on{why}: wait for yourself\n"
    )


def test_one_that_is_gone_is_not_waited_for(edge: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    edge.change("b1", in_flight=None, ready=False, gone=True, error="connection refused")
    edge.start()
    code, seconds = edge.ask("drain", "b1", "--wait", "20")
    assert (code, seconds < 5) == (0, True)
    assert capsys.readouterr().out.endswith(
        "b1 answers nobody (connection refused): there is nothing to wait for\n"
    )


def test_nginx_has_the_pause_between_two_reloads_longer_to_get_it(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operate, "_ACT_SECONDS", 0.2)
    edge.pool(published=False, reload_seconds=3.0)
    edge.start()
    edge.later(1.0, lambda: edge.pool(published=True))
    assert edge.ask("drain", "b1", "--wait", "0")[0] == 0
    edge.drains.remove("b1")
    edge.pool(published=False, reload_seconds=0.1)
    capsys.readouterr()
    time.sleep(0.2)
    assert edge.ask("drain", "b1", "--wait", "0")[0] == 1
    assert capsys.readouterr().err == (
        "modhaven: nginx has not got the pool without b1 after 0.3 s: see modhaven pool status; it "
        "stays drained, and modhaven pool undrain b1 lets it in again\n"
    )


def test_one_that_is_asked_although_it_is_down_is_not_in_again(
    edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    edge.drains.add("b1", "x")
    edge.change("b1", ready=False, error="connection refused")
    edge.start()
    assert edge.ask("undrain", "b1", "--wait", "0.5")[0] == 1
    assert capsys.readouterr().err == (
        "modhaven: b1 is not ready after 0.5 s, and asked all the same, since too few would be "
        "left: it is kept (connection refused)\n"
    )
    edge.later(0.5, lambda: edge.change("b1", ready=True))
    assert edge.ask("undrain", "b1", "--wait", "20")[0] == 0
    assert capsys.readouterr().out == "b1 was not drained\nb1 is asked\n"


def test_a_reason_is_the_same_with_other_blanks(
    edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    edge.start()
    assert edge.ask("drain", "b1", "--reason", "new  disk", "--wait", "0")[0] == 0
    assert edge.ask("undrain", "b1", "--reason", "another disk")[0] == 0
    assert capsys.readouterr().out.endswith("b1 stays drained: new disk\n")
    assert edge.ask("undrain", "b1", "--reason", " new disk ")[0] == 0
    assert capsys.readouterr().out == "b1 is no longer drained\nb1 is asked again\n"


def test_a_manager_that_just_starts_is_waited_for(edge: Edge) -> None:
    edge.later(0.7, edge.start)
    code, seconds = edge.ask("status")
    assert (code, seconds < 5) == (0, True)
