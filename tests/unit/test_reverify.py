"""Published files judged again: what the marks become, and who does it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.unit.test_wsgi import BASE, GOOD_SUMS, INFO, MOD, ZIP, Sums, make_zip

from modhaven import sumdb
from modhaven.reverify import Reverifier, judge
from modhaven.store.base import LockTimeoutError
from modhaven.store.disk import DiskStore
from modhaven.verify import MismatchError, Verdict, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from modhaven.protocol import Request

SILENT = sumdb.Unreachable("no database answers")
LIST = BASE.rpartition("/")[0] + "/list"


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store", min_free_bytes=0)


def publish(store: DiskStore, key: str, body: bytes, *, unverified: bool = True) -> None:
    with store.stage(key) as staged:
        staged.file.write(body)
        staged.publish(unverified=unverified)


def verifier(*lines: str, error: sumdb.SumdbError = SILENT, nosumdb: str = "") -> Verifier:
    return Verifier(Sums(lines, error, nosumdb).for_module)


def reverifier(store: DiskStore, verifier: Verifier) -> Reverifier:
    return Reverifier(store=store, verifier=verifier, pause_seconds=0.01, files_per_second=10_000)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_proven_file_loses_its_mark(store: DiskStore) -> None:
    publish(store, f"{BASE}.zip", ZIP)
    assert judge(store, verifier(*GOOD_SUMS), f"{BASE}.zip") is Verdict.VERIFIED
    assert list(store.unverified()) == []
    assert store.find(f"{BASE}.zip") is not None


def test_a_contradicted_file_is_withdrawn(
    store: DiskStore, caplog: pytest.LogCaptureFixture
) -> None:
    publish(store, f"{BASE}.info", INFO, unverified=False)
    publish(store, f"{BASE}.zip", make_zip(b"evil"))
    with pytest.raises(MismatchError):
        judge(store, verifier(*GOOD_SUMS), f"{BASE}.zip")
    assert store.find(f"{BASE}.zip") is None
    assert list(store.unverified()) == []
    assert (store.root / "cache/download" / LIST).read_text() == ""
    (reason,) = (store.root / "quarantine").glob("*.reason")
    for text in (caplog.text, reason.read_text()):
        assert f"{BASE}.zip" in text
        assert text.count("h1:") == 2


def test_an_unproven_file_gets_the_mark(store: DiskStore) -> None:
    publish(store, f"{BASE}.mod", MOD, unverified=False)
    assert judge(store, verifier(), f"{BASE}.mod") is Verdict.UNVERIFIED
    assert list(store.unverified()) == [f"{BASE}.mod"]


def test_a_mark_without_a_file_goes(store: DiskStore) -> None:
    store.mark(f"{BASE}.mod", unverified=True)
    assert judge(store, verifier(), f"{BASE}.mod") is None
    assert list(store.unverified()) == []


def test_what_became_private_is_no_longer_marked(store: DiskStore) -> None:
    publish(store, f"{BASE}.mod", MOD)
    private = Verifier(Sums((), SILENT, "example.com").for_module, pins=store.pins)
    assert judge(store, private, f"{BASE}.mod") is Verdict.PINNED
    assert list(store.unverified()) == []


def test_a_damaged_info_is_withdrawn(store: DiskStore) -> None:
    publish(store, f"{BASE}.info", b"\0" * 20, unverified=False)
    with pytest.raises(MismatchError, match="not JSON"):
        judge(store, verifier(), f"{BASE}.info")
    assert store.versions("example.com/m") == []
    assert (store.root / "cache/download" / LIST).read_text() == ""


def test_names_that_no_request_has_are_left_alone(store: DiskStore) -> None:
    assert judge(store, verifier(), "example.com/m/@v/v1.zip") is None


def test_one_file_that_fails_does_not_hold_up_the_others(store: DiskStore) -> None:
    other = "example.com/a/@v/v1.0.0.mod"
    publish(store, other, MOD)
    publish(store, f"{BASE}.mod", MOD)
    worker = reverifier(store, verifier(*GOOD_SUMS))
    assert not worker.sweep()
    assert not worker.sweep()
    assert list(store.unverified()) == [other]


def test_an_unexpected_failure_does_not_hold_up_the_others_either(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "m"):
        publish(store, f"example.com/{name}/@v/v1.0.0.mod", MOD)
    real = Verifier.verify

    def verify(self: Verifier, request: Request, file: BinaryIO) -> Verdict:
        if request.module == "example.com/a":
            raise RuntimeError("never thought of")
        return real(self, request, file)

    monkeypatch.setattr(Verifier, "verify", verify)
    worker = reverifier(store, verifier(*GOOD_SUMS))
    worker.start()
    try:
        eventually(lambda: list(store.unverified()) == ["example.com/a/@v/v1.0.0.mod"])
    finally:
        worker.stop()


def test_what_the_database_does_not_know_is_not_asked_again_at_once(store: DiskStore) -> None:
    publish(store, "example.com/a/@v/v1.0.0.mod", MOD)
    publish(store, f"{BASE}.mod", MOD)
    database = Sums(GOOD_SUMS, sumdb.NotFound("404"))
    worker = reverifier(store, Verifier(database.for_module))
    assert worker.sweep()
    assert list(store.unverified()) == ["example.com/a/@v/v1.0.0.mod"]
    database.error = SILENT
    assert worker.sweep()


def test_the_background_takes_over_from_who_stops(store: DiskStore) -> None:
    first, second = (reverifier(store, verifier(*GOOD_SUMS)) for _ in range(2))
    first.start()
    publish(store, f"{BASE}.mod", MOD)
    eventually(lambda: not list(store.unverified()))
    second.start()
    try:
        with pytest.raises(LockTimeoutError), store.lock("unverified/", wait_seconds=0):
            pass
        first.stop()
        publish(store, f"{BASE}.zip", ZIP)
        eventually(lambda: not list(store.unverified()))
    finally:
        first.stop()
        second.stop()
