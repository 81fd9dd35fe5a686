"""The quarantine: each file once, never too many, and always why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modhaven.store import files
from modhaven.store.quarantine import Quarantine


class Kept:
    def __init__(self, folder: Path, *, max_bytes: int = 100, max_files: int = 10) -> None:
        self.folder = folder / "quarantine"
        self.tmp = folder / "tmp"
        for made in (self.folder, self.tmp):
            made.mkdir()
        self.quarantine = Quarantine(
            self.folder, files.Writer(self.tmp), max_bytes=max_bytes, max_files=max_files
        )
        self.taken = 0

    def take(self, body: bytes, reason: str = "hash differs") -> Path:
        path = self.tmp / "file"
        path.write_bytes(body)
        kept = self.quarantine.take(path, reason)
        assert not path.exists()
        # A clock that ticks between any two of them.
        self.taken += 1
        os.utime(f"{kept}.reason", (self.taken, self.taken))
        return kept

    def bodies(self) -> set[bytes]:
        return {path.read_bytes() for path in self.folder.iterdir() if not path.suffix}

    def reasons(self) -> int:
        return len(list(self.folder.glob("*.reason")))


def test_the_same_bytes_are_kept_once_with_every_reason(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    first = kept.take(b"evil", "a.zip from one")
    assert kept.take(b"evil", "b.zip from\ntwo") == first
    assert kept.take(b"evil", "a.zip from one") == first
    assert kept.bodies() == {b"evil"}
    assert Path(f"{first}.reason").read_text() == "b.zip from two\na.zip from one\n"


def test_reasons_are_bounded(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for number in range(50):
        path = kept.take(b"<html>please log in</html>", f"module {number}")
    lines = Path(f"{path}.reason").read_text().splitlines()
    assert (len(lines), lines[-1]) == (20, "module 49")


def test_the_oldest_go_first(tmp_path: Path) -> None:
    kept = Kept(tmp_path, max_bytes=10)
    for body in (b"1111", b"2222", b"3333"):
        kept.take(body)
    assert kept.bodies() == {b"2222", b"3333"}
    assert kept.reasons() == 2


def test_what_comes_again_is_young_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path, max_bytes=10)
    for body in (b"1111", b"2222", b"1111", b"3333"):
        kept.take(body)
    assert kept.bodies() == {b"1111", b"3333"}


def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    kept = Kept(tmp_path, max_files=3)
    for number in range(8):
        kept.take(b"%d" % number)
    assert kept.bodies() == {b"5", b"6", b"7"}
    assert kept.reasons() == 3


@pytest.mark.parametrize("max_bytes", [0, 10])
def test_of_a_file_that_is_too_large_the_reason_is_kept(tmp_path: Path, max_bytes: int) -> None:
    kept = Kept(tmp_path, max_bytes=max_bytes)
    path = kept.take(b"x" * 11, "a.zip from one")
    assert kept.bodies() == set()
    assert Path(f"{path}.reason").read_text() == "a.zip from one\n"
