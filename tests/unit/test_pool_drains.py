"""Who was taken out by people."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from modhaven.pool import drains
from modhaven.pool.drains import Drains

if TYPE_CHECKING:
    from pathlib import Path


def test_a_drain_outlives_whoever_made_it(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "drained"
    assert Drains(folder).all() == {}
    assert Drains(folder).add("backend1", "a new disk")
    assert not Drains(folder).add("backend1", "another reason")
    drain = Drains(folder).all()["backend1"]
    assert drain.reason == "a new disk"
    assert drain.since == (folder / "backend1").stat().st_mtime
    assert Drains(folder).remove("backend1")
    assert not Drains(folder).remove("backend1")
    assert Drains(folder).all() == {}


def test_whatever_lies_in_the_folder_is_read(tmp_path: Path) -> None:
    folder = Drains(tmp_path)
    folder.add("a", "two\nlines \x1b[31m")
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    (tmp_path / "c").touch()
    (tmp_path / ".half-written").write_text("x")
    found = folder.all()
    assert sorted(found) == ["a", "b", "c"]
    assert found["a"].reason == "two lines [31m"
    assert found["c"].reason == ""
    assert all(drain.reason.isprintable() for drain in found.values())


def test_what_is_no_file_is_nobody_and_harms_nobody(tmp_path: Path) -> None:
    Drains(tmp_path).add("a", "x")
    (tmp_path / "old").mkdir()
    assert list(Drains(tmp_path).all()) == ["a"]


def test_whose_file_cannot_be_read_is_drained(tmp_path: Path) -> None:
    # Its first byte is no memory of ours, whoever asks.
    (tmp_path / "a").symlink_to("/proc/self/mem")
    drain = Drains(tmp_path).all()["a"]
    assert drain.reason == "why cannot be read: Input/output error"


@pytest.mark.parametrize(
    "reason", ["new  disk", "two\nlines \x1b[31m", "a \x1b b", "caf\udce9", " "]
)
def test_a_reason_is_kept_as_it_is_compared(tmp_path: Path, reason: str) -> None:
    Drains(tmp_path).add("a", reason)
    assert Drains(tmp_path).all()["a"].reason == drains.normal(reason)


def test_one_at_a_time(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with Drains(tmp_path / "drained").alone():
            order.append("second")

    other = threading.Thread(target=second)
    with Drains(tmp_path / "drained").alone():
        other.start()
        time.sleep(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_what_cannot_be_read_is_an_error_and_not_nobody(tmp_path: Path) -> None:
    path = tmp_path / "drained"
    path.write_text("not a folder")
    with pytest.raises(OSError, match="Not a directory"):
        Drains(path).all()
    if os.geteuid() != 0:
        path.unlink()
        path.mkdir(mode=0o000)
        with pytest.raises(PermissionError):
            Drains(path).all()
