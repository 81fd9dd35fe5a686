"""What people and programs are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.unit.pools import servers

from modhaven.pool import status
from modhaven.pool.drains import Drain
from modhaven.pool.health import Seen
from modhaven.pool.settings import Server
from modhaven.pool.status import PoolStatus, ServerStatus

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_700_000_000.0


def told(*rows: ServerStatus, **changes: object) -> PoolStatus:
    values: dict[str, object] = {
        "time": NOW, "published": True, "error": "", "kept": False, "promoted": False,
        "connections": 12.4, "baseline": 10.0, "reloads": 3, "servers": rows,
    }  # fmt: skip
    return PoolStatus(**(values | changes))  # type: ignore[arg-type] # all are given


def ago(seconds: float, state: str = "up", **more: object) -> Seen:
    return Seen(state=state, since=NOW - seconds, **more)  # type: ignore[arg-type] # as above


ROWS = (
    status.of_server(
        Server(name="backend1", address="10.0.3.11", port=8443),
        ago(3 * 86400, in_flight=12, error="no answer within 0.8 s", error_at=NOW - 7200),
        out="",
        drain=None,
    ),
    status.of_server(
        Server(name="backend2", address="10.0.3.12", port=8443, weight=16),
        ago(12, "down", error="503 the disk is full: 12 MB free", error_at=NOW),
        out="down",
        drain=None,
    ),
    status.of_server(
        Server(name="backend3", address="fd00::13", port=8443),
        ago(99, in_flight=0),
        out="drained",
        drain=Drain(reason="a new disk", since=NOW - 300),
    ),
    status.of_server(
        Server(name="backend4", address="10.0.3.14", port=8443),
        ago(5, "joining", error="connection refused", error_at=NOW),
        out="joining",
        drain=None,
    ),
    status.of_server(
        Server(name="spare1", address="10.0.3.15", port=8443, backup=True),
        ago(100, in_flight=0),
        out="",
        drain=None,
    ),
)
TABLE = """\
backend   address          weight  state          for  in flight  last error
backend1  10.0.3.11:8443        1  up             3 d         12  no answer within 0.8 s (2 h ago)
backend2  10.0.3.12:8443       16  down          12 s          -  503 the disk is full: 12 MB free
backend3  [fd00::13]:8443       1  drained        5 m          0  a new disk
backend4  10.0.3.14:8443        1  joining        5 s          -  connection refused
spare1    10.0.3.15:8443        1  up (backup)  100 s          0
"""


def test_the_table_can_be_read() -> None:
    assert status.table(told(*ROWS), now=NOW) == TABLE


def test_the_table_fits_the_terminal() -> None:
    lines = status.table(told(*ROWS), now=NOW, width=90).splitlines()
    assert max(map(len, lines)) == 90
    assert lines[2].endswith("503 the disk is full: 1…")


def test_the_table_of_a_thousand_is_made_quickly_enough_to_look_at() -> None:
    rows = tuple(
        status.of_server(one, ago(1), out="", drain=None)
        for one in servers(*(f"backend{number}" for number in range(1000)))
    )
    assert len(status.table(told(*rows), now=NOW).splitlines()) == 1001


def remarks(made: PoolStatus) -> list[str]:
    return status.table(made, now=NOW).splitlines()[1 + len(made.servers) :]


def test_what_is_out_of_the_ordinary_is_said() -> None:
    assert remarks(told(*ROWS)) == []
    kept = status.of_server(
        Server(name="backend1", address="::1", port=1), ago(1, "down"), out="", drain=None
    )
    assert kept.state == "kept"
    assert remarks(told(*[kept] * 7, kept=True)) == [
        (
            "Too few would be left (max_removed_share), so these are asked all the same: backend1, "
            "backend1, backend1, backend1, backend1 and 2 more."
        )
    ]
    assert remarks(told(promoted=True, connections=310.2, baseline=99.7)) == [
        "More connections than usual (310, usual are 100): backups serve beside the others."
    ]
    assert remarks(told(published=False, error="nginx -t refused the pool: x")) == [
        "nginx has not got this pool yet.",
        "Error: nginx -t refused the pool: x",
    ]
    # A pool.yml that is refused leaves nginx with all it should have: said all the same.
    assert remarks(told(error="the pool stays as it was")) == ["Error: the pool stays as it was"]


def test_a_backup_that_nginx_does_not_know_of_rests() -> None:
    spare = Server(name="spare1", address="10.0.3.15", port=8443, backup=True)
    row = status.of_server(spare, ago(1), out="resting", drain=None)
    assert (row.state, row.asked, row.ready) == ("resting", False, True)


def test_a_promoted_backup_is_none() -> None:
    table = status.table(told(*ROWS, promoted=True), now=NOW)
    assert "(backup)" not in table


def test_all_drained_are_still_called_drained() -> None:
    row = status.of_server(
        Server(name="b", address="::1", port=1), ago(1), out="", drain=Drain(reason="", since=1)
    )
    assert row.state == "drained"


def test_a_drained_one_that_is_not_ready_shows_why() -> None:
    row = status.of_server(
        Server(name="b", address="::1", port=1),
        ago(1, "down", error="connection refused"),
        out="down",
        drain=Drain(reason="a new disk", since=NOW),
    )
    assert "a new disk; connection refused" in status.table(told(row), now=NOW)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    assert status.read(path) is None
    made = told(*ROWS)
    status.write(path, made)
    assert status.read(path) == made
    assert made.server("backend2") == ROWS[1]
    assert made.server("backend9") is None
    for rubbish in ("", "[]", "{}", '{"servers": [{}]}', '{"servers": 3}', "\x00"):
        path.write_text(rubbish)
        assert status.read(path) is None


def test_what_another_release_wrote_is_read(tmp_path: Path) -> None:
    """On a host that is an edge too, the app is newer for a while than its pool manager."""
    path = tmp_path / "status.json"
    made = told(*ROWS)
    status.write(path, made)
    data = json.loads(path.read_text())
    newer = [server | {"a key of the future": 1} for server in data["servers"]]
    path.write_text(json.dumps(data | {"servers": newer, "another": 2}))
    assert status.read(path) == made
    for server in data["servers"]:
        del server["gone"]
    del data["reload_seconds"]
    path.write_text(json.dumps(data))
    assert status.read(path) == made
    # Without who wrote it nobody keeps it up to date.
    del data["pid"]
    path.write_text(json.dumps(data | {"time": time.time()}))
    read = status.read(path)
    assert read is not None
    assert read.is_old


def test_what_a_dead_manager_told_is_old_at_once() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert told(time=time.time(), pid=child.pid).is_old
    assert not told(time=time.time(), pid=os.getpid()).is_old
    assert told(time=time.time() - 60, pid=os.getpid()).is_old
