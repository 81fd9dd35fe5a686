"""What is written down of purges, and what it keeps from being published."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tests.unit.test_store_disk import ZIP, publish

from modhaven.selection import NEGATIVE, Selection
from modhaven.store.base import PurgedError
from modhaven.store.disk import DiskStore

if TYPE_CHECKING:
    from pathlib import Path

MODULE = Selection.of_module("rsc.io/quote")
OTHER = Selection.of_module("example.com/other")
LIST = "rsc.io/quote/@v/list"


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store", min_free_bytes=0)


def test_the_last_purge_of_a_key_is_known_to_every_process(store: DiskStore) -> None:
    another = DiskStore(store.root, min_free_bytes=0)
    assert another.purges.last(LIST) == 0
    store.purges.add(MODULE)
    first = another.purges.last(LIST)
    assert first > 0
    store.purges.add(OTHER)
    assert another.purges.last(LIST) == first
    store.purges.add(MODULE)
    assert another.purges.last(LIST) > first


def test_a_purge_of_every_not_found_concerns_no_file(store: DiskStore) -> None:
    store.purges.add(NEGATIVE)
    assert store.purges.last(LIST) == 0
    assert store.purges.last(LIST, negative=True) > 0


def test_what_was_staged_before_a_purge_is_not_published(store: DiskStore) -> None:
    with store.stage(ZIP) as staged:
        staged.file.write(b"old")
        store.purges.add(OTHER)
        store.purges.add(NEGATIVE)
        staged.publish(unverified=True)
    with store.stage(ZIP) as staged:
        store.purges.add(MODULE)
        with pytest.raises(PurgedError):
            staged.publish(unverified=True)
    publish(store, ZIP, b"new")
    stored = store.find(ZIP)
    assert stored is not None
    assert not stored.unverified
    assert stored.path.read_bytes() == b"new"


def test_an_answer_asked_for_before_a_purge_is_not_kept(store: DiskStore) -> None:
    store.put_mutable(LIST, b"old", "mirror", since=0)
    store.purges.add(MODULE)
    with pytest.raises(PurgedError):
        store.put_mutable(LIST, b"older", "mirror", since=0)
    store.put_mutable(LIST, b"new", "mirror", since=store.purges.last(LIST))
    kept = store.get_mutable(LIST)
    assert kept is not None
    assert kept.body == b"new"


def test_a_purge_waits_for_what_is_being_published(store: DiskStore) -> None:
    """Else a file could appear after the purge has looked for it."""
    done = threading.Event()

    def purge() -> None:
        store.purges.add(MODULE)
        done.set()

    purging = threading.Thread(target=purge)
    with store.purges.unchanged(ZIP, 0):
        purging.start()
        assert not done.wait(0.3)
    purging.join()
    assert done.is_set()


def test_old_purges_are_forgotten_on_the_safe_side(store: DiskStore) -> None:
    before = store.purges.last(LIST)
    store.purges.add(MODULE)
    purged = store.purges.last(LIST)
    for _ in range(200):
        store.purges.add(OTHER)
    # Which purge it was is not known any more: everything from then counts as purged.
    assert store.purges.last(LIST) > purged > before
    assert store.purges.last("a.b/c/@latest") == store.purges.last(LIST)
    assert len((store.root / "purges").read_bytes()) < 20_000


def test_a_damaged_record_is_as_good_as_none_and_numbers_never_come_back(
    store: DiskStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.purges.add(MODULE)
    first = store.purges.last(LIST)
    (store.root / "purges").write_bytes(b"")
    assert store.purges.last(LIST) == 0
    assert "is damaged" in caplog.text
    store.purges.add(MODULE)
    assert store.purges.last(LIST) > first
