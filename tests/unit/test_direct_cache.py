"""The repositories that are kept: the oldest go first, none that is in use, none that is locked."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

from modhaven.direct_cache import Repositories

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def clone(folder: Path, ident: str, *, age: float, size: int = 100_000) -> None:
    (folder / ident / "objects").mkdir(parents=True)
    (folder / ident / "objects" / "pack").write_bytes(os.urandom(size))
    for name in (f"{ident}.lock", f"{ident}.info"):
        (folder / name).write_text("git3:https://a.b")
    used = time.time() - age
    os.utime(folder / f"{ident}.info", (used, used))


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    for ident, age in ((A, 1000), (B, 3000), (C, 2000)):
        clone(tmp_path, ident, age=age)
    repositories = Repositories(tmp_path, max_bytes=250_000, busy_seconds=300)
    repositories.trim()
    assert kept(tmp_path) == [A, C]
    assert not (tmp_path / f"{B}.info").exists()
    repositories.use(C)
    clone(tmp_path, B, age=500)
    repositories.trim()
    assert kept(tmp_path) == [B, C]


def test_what_may_be_in_use_stays(tmp_path: Path) -> None:
    clone(tmp_path, A, age=1000)
    clone(tmp_path, B, age=100)
    with (tmp_path / f"{A}.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Repositories(tmp_path, max_bytes=1, busy_seconds=300).trim()
        assert kept(tmp_path) == [A, B]
        assert not Repositories(tmp_path, max_bytes=1, busy_seconds=300).remove([A], seconds=0.2)
    Repositories(tmp_path, max_bytes=1, busy_seconds=300).trim()
    assert kept(tmp_path) == [B]


def test_a_clone_that_grew_is_measured_again(tmp_path: Path) -> None:
    clone(tmp_path, A, age=1000)
    clone(tmp_path, B, age=900)
    repositories = Repositories(tmp_path, max_bytes=250_000, busy_seconds=300)
    repositories.trim()
    assert kept(tmp_path) == [A, B]
    (tmp_path / B / "objects" / "more").write_bytes(os.urandom(100_000))
    used = time.time() - 400
    os.utime(tmp_path / f"{B}.info", (used, used))
    repositories.trim()
    assert kept(tmp_path) == [B]


def test_a_damaged_clone_is_removed_whole(tmp_path: Path) -> None:
    clone(tmp_path, A, age=0)
    clone(tmp_path, B, age=0)
    assert Repositories(tmp_path, max_bytes=1, busy_seconds=300).remove([A], seconds=1)
    assert kept(tmp_path) == [B]
    assert not (tmp_path / f"{A}.info").exists()


def test_locks_of_clones_that_are_gone_go_after_a_day(tmp_path: Path) -> None:
    for ident, age in ((A, 90_000), (B, 10)):
        lock = tmp_path / f"{ident}.lock"
        lock.touch()
        os.utime(lock, (time.time() - age,) * 2)
    Repositories(tmp_path, max_bytes=1, busy_seconds=300).trim()
    assert [path.name for path in tmp_path.iterdir()] == [f"{B}.lock"]


def test_it_trims_in_the_background_once_a_minute(tmp_path: Path) -> None:
    clone(tmp_path, A, age=1000)
    repositories = Repositories(tmp_path, max_bytes=1, busy_seconds=300)
    repositories.trim_if_due()
    end = time.monotonic() + 10
    while kept(tmp_path):
        assert time.monotonic() < end
        time.sleep(0.01)
    clone(tmp_path, B, age=1000)
    repositories.trim_if_due()
    repositories.trim_if_due()
    assert kept(tmp_path) == [B]
