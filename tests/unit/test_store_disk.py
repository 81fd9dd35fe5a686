"""The disk store: all or nothing, one holder a key, and the go command's layout."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.conftest import ROOT

from modhaven.store.base import LockTimeoutError, StoreError
from modhaven.store.disk import DiskStore

ZIP = "rsc.io/quote/@v/v1.5.2.zip"


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store", min_free_bytes=0)


def publish(store: DiskStore, key: str, body: bytes) -> None:
    with store.stage(key) as staged:
        staged.file.write(body)
        staged.publish()


def files(store: DiskStore) -> list[str]:
    found = [path for path in store.root.rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(store.root)) for path in found)


def test_publish(store: DiskStore) -> None:
    assert store.find(ZIP) is None
    publish(store, ZIP, b"bytes")
    stored = store.find(ZIP)
    assert stored is not None
    assert stored.path == store.root / "cache" / "download" / ZIP
    assert (stored.size, stored.path.read_bytes()) == (5, b"bytes")
    assert not stored.unverified
    assert files(store) == [f"cache/download/{ZIP}"]


def test_files_are_readable_by_the_stores_group(store: DiskStore) -> None:
    old = os.umask(0o027)
    try:
        publish(store, ZIP, b"bytes")
    finally:
        os.umask(old)
    assert (store.root / "cache" / "download" / ZIP).stat().st_mode & 0o777 == 0o640


def test_what_is_not_published_leaves_nothing(store: DiskStore) -> None:
    with store.stage(ZIP) as staged:
        staged.file.write(b"half")
    assert files(store) == []


def test_unverified_is_remembered_until_a_verified_copy_comes(store: DiskStore) -> None:
    with store.stage(ZIP) as staged:
        staged.publish(unverified=True)
    found = store.find(ZIP)
    assert found is not None
    assert found.unverified
    publish(store, ZIP, b"bytes")
    found = store.find(ZIP)
    assert found is not None
    assert not found.unverified


def test_quarantine_keeps_the_bytes_out_of_reach(store: DiskStore) -> None:
    with store.stage(ZIP) as staged:
        staged.file.write(b"evil")
        kept = staged.quarantine("hash differs")
    assert kept.parent == store.root / "quarantine"
    assert kept.read_bytes() == b"evil"
    assert Path(f"{kept}.reason").read_text() == "hash differs\n"
    assert store.find(ZIP) is None


def test_marks_come_and_go_and_are_listed(store: DiskStore) -> None:
    assert list(store.unverified()) == []
    for key in (ZIP, "github.com/!a/x/@v/v1.0.0.mod"):
        store.mark(key, unverified=True)
        store.mark(key, unverified=True)
    assert list(store.unverified()) == ["github.com/!a/x/@v/v1.0.0.mod", ZIP]
    for _ in range(2):
        store.mark(ZIP, unverified=False)
    assert list(store.unverified()) == ["github.com/!a/x/@v/v1.0.0.mod"]


def test_published_are_the_files_of_modules(store: DiskStore) -> None:
    keys = [f"rsc.io/quote/@v/v1.5.2.{extension}" for extension in ("info", "mod", "zip")]
    for key in (*keys, "sumdb/a.b/lookup/rsc.io/quote@v1.5.2"):
        publish(store, key, b"{}")
    (store.root / "cache/download/rsc.io/quote/@v/v1.5.2.ziphash").touch()
    (store.root / "cache/download/rsc.io/quote/@v/v1.5.2.lock").touch()
    assert list(store.published()) == keys


def test_what_is_withdrawn_leaves_the_list_too(store: DiskStore) -> None:
    for version in ("v1.5.1", "v1.5.2"):
        publish(store, f"rsc.io/quote/@v/{version}.info", b"{}")
    with store.stage(ZIP) as staged:
        staged.file.write(b"evil")
        staged.publish(unverified=True)
    kept = store.withdraw(ZIP, "hash differs")
    assert kept.read_bytes() == b"evil"
    assert Path(f"{kept}.reason").read_text() == "hash differs\n"
    assert store.find(ZIP) is None
    assert (store.root / "cache/download/rsc.io/quote/@v/list").read_text() == "v1.5.1\n"
    assert store.versions("rsc.io/quote") == ["v1.5.1"]
    assert list(store.unverified()) == []


def test_list_is_what_the_store_holds(store: DiskStore) -> None:
    for version in ("v1.10.0", "v1.2.0", "v1.0.0-!r!c1", "v0.0.0-20160102150405-abcdef123456"):
        publish(store, f"github.com/!a/x/@v/{version}.info", b"{}")
    listed = store.root / "cache/download/github.com/!a/x/@v/list"
    assert listed.read_text() == "v1.0.0-RC1\nv1.2.0\nv1.10.0\n"
    assert len(store.versions("github.com/!a/x")) == 4


def test_mutable_answers_are_kept_apart_with_their_age(store: DiskStore) -> None:
    assert store.get_mutable("a.b/@latest") is None
    store.put_mutable("a.b/@latest", b"one\ntwo", "mirror", since=0)
    kept = store.get_mutable("a.b/@latest")
    assert kept is not None
    assert (kept.body, kept.source) == (b"one\ntwo", "mirror")
    assert 0 <= kept.age < 5
    assert files(store) == ["mutable/a.b/@latest"]


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]\nx", b"\xff\n"])
def test_a_damaged_mutable_answer_is_as_good_as_none(store: DiskStore, content: bytes) -> None:
    path = store.root / "mutable" / "a.b" / "@latest"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert store.get_mutable("a.b/@latest") is None


def test_one_holder_among_threads(store: DiskStore) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with store.lock("k", wait_seconds=20):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.005)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20


def test_keys_have_locks_of_their_own_and_leave_no_files(store: DiskStore) -> None:
    with store.lock("k", wait_seconds=1):
        for number in range(50):
            with store.lock(f"k{number}", wait_seconds=0):
                pass
    assert files(store) == ["locks/keys"]


def test_waiting_for_a_lock_ends(store: DiskStore) -> None:
    with (
        store.lock("k", wait_seconds=1),
        pytest.raises(LockTimeoutError),
        store.lock("k", wait_seconds=0.1),
    ):
        pass


HOLDER = """
import pathlib, sys, time
from modhaven.store.disk import DiskStore
with DiskStore(pathlib.Path(sys.argv[1]), min_free_bytes=0).lock("k", wait_seconds=1):
    pathlib.Path(sys.argv[2]).touch()
    time.sleep(60)
"""


def test_a_lock_dies_with_its_holder(store: DiskStore, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store.root, ready],
        env={**os.environ, "PYTHONPATH": str(ROOT / "app")},
    )
    end = time.monotonic() + 20
    while not ready.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    with pytest.raises(LockTimeoutError), store.lock("k", wait_seconds=0.1):
        pass
    holder.kill()
    holder.wait()
    with store.lock("k", wait_seconds=1):
        pass


def test_leftovers_of_the_dead_are_removed_at_the_next_start(store: DiskStore) -> None:
    old, young = store.root / "tmp" / "old", store.root / "tmp" / "young"
    old.touch()
    young.touch()
    os.utime(old, (1, 1))
    DiskStore(store.root, min_free_bytes=0)
    assert not old.exists()
    assert young.exists()


def test_problems_are_sentences(store: DiskStore, tmp_path: Path) -> None:
    assert store.problem() is None
    full = DiskStore(tmp_path / "store", min_free_bytes=1 << 60)
    assert "store.min_free_bytes" in str(full.problem())
    (store.root / "tmp").rename(store.root / "gone")
    assert "No such file" in str(store.problem())
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        DiskStore(tmp_path / "file" / "store", min_free_bytes=0)
