"""Judging one file: with the database, without it, and by its first use."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.conftest import FakeUpstream, Reply
from tests.unit.test_wsgi import BASE, GOOD_SUMS, INFO, MOD, ZIP, Sums, build, call, make_zip

from modhaven import protocol, sumdb
from modhaven.store.disk import DiskStore
from modhaven.verify import MismatchError, StoppedError, UnprovenError, Verdict, Verifier

if TYPE_CHECKING:
    from pathlib import Path

SILENT = sumdb.Unreachable("no database answers")


def verify(verifier: Verifier, extension: str, body: bytes) -> Verdict:
    return verifier.verify(protocol.parse(f"/{BASE}.{extension}"), io.BytesIO(body))


def verifier(
    *lines: str, error: sumdb.SumdbError = SILENT, required: bool = False, nosumdb: str = ""
) -> Verifier:
    return Verifier(Sums(lines, error, nosumdb).for_module, required=required)


@pytest.mark.parametrize(("extension", "body"), [("zip", ZIP), ("mod", MOD)])
def test_what_the_database_has_is_verified(extension: str, body: bytes) -> None:
    assert verify(verifier(*GOOD_SUMS, required=True), extension, body) is Verdict.VERIFIED


@pytest.mark.parametrize(("extension", "body"), [("zip", make_zip(b"evil")), ("mod", MOD + b"//")])
def test_other_bytes_are_a_mismatch_that_names_both_hashes(extension: str, body: bytes) -> None:
    with pytest.raises(MismatchError, match=r"h1:.*h1:"):
        verify(verifier(*GOOD_SUMS), extension, body)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (SILENT, Verdict.UNVERIFIED),
        (sumdb.NotFound("404"), Verdict.UNKNOWN),
        (sumdb.SecurityError("rubbish"), Verdict.UNKNOWN),
    ],
)
def test_without_a_proof_it_is_unproven_or_refused(
    error: sumdb.SumdbError, verdict: Verdict
) -> None:
    assert verify(verifier(error=error), "mod", MOD) is verdict
    assert verdict.unproven
    with pytest.raises(UnprovenError, match=f"require_verified is set.*{error}"):
        verify(verifier(error=error, required=True), "mod", MOD)


def test_a_fork_stops_everything() -> None:
    with pytest.raises(StoppedError, match="two histories"):
        verify(verifier(error=sumdb.ForkError("two histories", "proof")), "mod", MOD)


def test_info_is_exempt() -> None:
    assert verify(verifier(required=True), "info", INFO) is Verdict.EXEMPT


@pytest.mark.parametrize("with_database", [True, False])
def test_what_no_database_is_asked_about_is_pinned(tmp_path: Path, *, with_database: bool) -> None:
    store = DiskStore(tmp_path, min_free_bytes=0)
    database_for = Sums((), SILENT, "example.com").for_module if with_database else lambda _: None
    pinned = Verifier(database_for, pins=store.pins, required=True)
    for _ in range(2):
        assert verify(pinned, "mod", MOD) is Verdict.PINNED
    with pytest.raises(MismatchError, match=r"h1:.*first used here h1:.*remove ") as caught:
        verify(pinned, "mod", MOD + b"//")
    where = tmp_path / "pins" / f"{BASE}.mod"
    assert str(where) in str(caught.value)
    where.unlink()
    assert verify(pinned, "mod", MOD + b"//") is Verdict.PINNED


class Remembering(Sums):
    """Remembers when it was asked first."""

    def __init__(self, nosumdb: str = "") -> None:
        super().__init__(GOOD_SUMS, SILENT, nosumdb)
        self.asked = threading.Event()
        self.asked_at = 0.0

    def lookup_hash(self, module: str, version: str, suffix: str = "") -> str:
        if not self.asked.is_set():
            self.asked_at = time.monotonic()
            self.asked.set()
        return super().lookup_hash(module, version, suffix)


def test_the_database_is_asked_while_a_go_mod_is_being_fetched(
    tmp_path: Path, fake: FakeUpstream
) -> None:
    app, database = build(tmp_path, fake.url), Remembering()
    app._gateway._verifier = Verifier(database.for_module)
    fake.script(f"{BASE}.mod", Reply(body=MOD, delay_seconds=0.3))
    began = time.monotonic()
    assert call(app, f"/{BASE}.mod").status == 200
    assert database.asked_at - began < 0.3


@pytest.mark.parametrize(("extension", "nosumdb"), [("zip", ""), ("info", ""), ("mod", "*.com")])
def test_nobody_is_asked_ahead_in_vain(extension: str, nosumdb: str) -> None:
    database = Remembering(nosumdb)
    Verifier(database.for_module).look_ahead(protocol.parse(f"/{BASE}.{extension}"))
    assert not database.asked.wait(0.2)
