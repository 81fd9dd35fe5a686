"""``modhaven verify``: what it counts, what it says, and its exit status."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

import pytest
import yaml
from tests.conftest import TEST_SUMDB
from tests.unit.test_reverify import SILENT, publish, store
from tests.unit.test_wsgi import BASE, GOOD_SUMS, INFO, MOD, ZIP, Sums, make_zip

from modhaven import audit, cli, sumdb
from modhaven.config import ConfigError
from modhaven.protocol import Kind, Request
from modhaven.verify import Verdict, Verifier

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from modhaven.store.disk import DiskStore

__all__ = ["store"]


def run(store: DiskStore, *lines: str, error: sumdb.SumdbError = SILENT) -> tuple[int, str, str]:
    out, progress = io.StringIO(), io.StringIO()
    verifier = Verifier(Sums(lines, error, "private.example").for_module, pins=store.pins)
    status = audit.run(
        store=store, verifier=verifier, out=out, progress=progress, progress_seconds=0
    )
    return status, out.getvalue(), progress.getvalue()


def figures(table: str) -> dict[str, int]:
    return {line.split()[0]: int(line.split()[1]) for line in table.splitlines()}


def fill(store: DiskStore) -> None:
    for extension, body in (("info", INFO), ("mod", MOD), ("zip", ZIP)):
        publish(store, f"{BASE}.{extension}", body, unverified=False)
    publish(store, "private.example/m/@v/v1.0.0.mod", MOD, unverified=False)


def test_a_good_store(store: DiskStore) -> None:
    fill(store)
    status, table, progress = run(store, *GOOD_SUMS)
    assert status == 0
    assert figures(table) == {
        "checked": 4, "verified": 2, "pinned": 1, "exempt": 1,
        "unverified": 0, "unknown": 0, "busy": 0, "failed": 0, "contradicted": 0,
    }  # fmt: skip
    assert progress.splitlines()[-1] == "4 files checked, 0 contradicted"


def test_wrong_files_are_quarantined_and_the_status_is_1(store: DiskStore) -> None:
    fill(store)
    publish(store, f"{BASE}.zip", make_zip(b"evil"), unverified=False)
    assert run(store, *GOOD_SUMS)[0] == 1
    assert store.find(f"{BASE}.zip") is None
    assert store.versions("example.com/m") == []
    assert run(store, *GOOD_SUMS)[0] == 0


def test_seeded_files_that_nobody_vouches_for_are_marked(store: DiskStore) -> None:
    fill(store)
    status, table, _ = run(store)
    assert (status, figures(table)["unverified"]) == (0, 2)
    assert list(store.unverified()) == [f"{BASE}.mod", f"{BASE}.zip"]


def test_a_file_that_cannot_be_read_does_not_end_the_run(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    real = Verifier.verify

    def verify(self: Verifier, request: Request, file: BinaryIO) -> Verdict:
        if request.kind is Kind.MOD:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, request, file)

    monkeypatch.setattr(Verifier, "verify", verify)
    status, table, progress = run(store, *GOOD_SUMS)
    assert (status, figures(table)["failed"], figures(table)["verified"]) == (2, 2, 1)
    assert "v1.0.0.mod cannot be read: Input/output error" in progress


def test_a_fork_is_told(store: DiskStore) -> None:
    fill(store)
    status, _, progress = run(store, error=sumdb.ForkError("two histories", "proof"))
    assert status == 0
    assert "two histories" in progress


def test_a_list_that_a_crash_left_behind_is_made_right(store: DiskStore) -> None:
    fill(store)
    listed = store.root / "cache/download/example.com/m/@v/list"
    listed.unlink()
    run(store, *GOOD_SUMS)
    assert listed.read_text() == "v1.0.0\n"


def test_the_command(
    store: DiskStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused_url: str
) -> None:
    fill(store)
    file = tmp_path / "modhaven.yml"
    settings = {
        "store": {"path": str(store.root)},
        "upstreams": "off",
        "sumdb": f"{TEST_SUMDB} {refused_url}",
    }
    file.write_text(yaml.safe_dump(settings))
    assert cli.main(["verify", "--config", str(file)]) == 0
    assert figures(capsys.readouterr().out)["unverified"] == 3
    marker = store.root / "unverified" / f"{BASE}.zip"
    assert marker.stat().st_mode & 0o777 == 0o640
    (store.root / "cache/download" / f"{BASE}.zip").write_bytes(b"rotten")
    assert cli.main(["verify", "--config", str(file)]) == 1


def test_another_users_store_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit.check_user(tmp_path)
    audit.check_user(tmp_path / "none")
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="run this as that user"):
        audit.check_user(tmp_path)
