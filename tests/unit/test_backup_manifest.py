"""The manifest of a backup: what it notices before anything is put back."""

from __future__ import annotations

import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.unit.ansible_plugin import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = ROOT / "roles/backup/files/manifest.sh"
MODULE = "store/cache/download/example.com/!upper/@v/v1.0.0.zip"


def manifest(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, command, folder], check=False, capture_output=True, text=True)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    for name, text in {MODULE: "zip", "state/pki/ca.key": "key", "a name": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    written = manifest("write", tmp_path)
    assert written.returncode == 0, written.stderr
    assert written.stdout.splitlines()[0] == "3"
    assert int(written.stdout.splitlines()[1]) > 0
    assert stat.S_IMODE((tmp_path / "MANIFEST.sha256").stat().st_mode) == 0o600
    return tmp_path


def test_a_whole_backup_is_whole(backup: Path) -> None:
    checked = manifest("check", backup)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_one_changed_byte_is_named(backup: Path) -> None:
    (backup / MODULE).write_text("zap")
    checked = manifest("check", backup)
    assert checked.returncode == 1
    assert f"./{MODULE}: FAILED" in checked.stdout


def test_a_missing_file_is_named(backup: Path) -> None:
    (backup / "state/pki/ca.key").unlink()
    checked = manifest("check", backup)
    assert checked.returncode == 1
    assert "./state/pki/ca.key" in checked.stdout


def test_a_file_that_nobody_backed_up_is_named(backup: Path) -> None:
    (backup / MODULE).with_name("v1.0.1.zip").write_text("planted")
    checked = manifest("check", backup)
    assert checked.returncode == 1
    assert "v1.0.1.zip: not in the manifest" in checked.stdout


def test_a_cut_manifest_is_damage_too(backup: Path) -> None:
    path = backup / "MANIFEST.sha256"
    path.write_text(path.read_text()[:-40])
    assert manifest("check", backup).returncode == 1


def test_an_empty_manifest_vouches_for_nothing(backup: Path) -> None:
    (backup / "MANIFEST.sha256").write_text("")
    assert manifest("check", backup).returncode == 1
