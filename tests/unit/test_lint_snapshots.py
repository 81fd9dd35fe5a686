"""What lint compares nginx's configuration with: a difference is shown, and none is overlooked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.lint import snapshots

if TYPE_CHECKING:
    from pathlib import Path

HASH = "0123456789abcdef" * 4
DEFAULT = {"modhaven/edge/a.conf": "one\ntwo\n", "modhaven/edge/b.conf": "b\n"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(snapshots, "SNAPSHOTS", tmp_path / "snapshots")
    snapshots.write("default", DEFAULT)
    return tmp_path / "snapshots"


def test_a_variant_keeps_only_what_differs_and_is_whole_again(folder: Path) -> None:
    other = {"modhaven/edge/a.conf": "one\nthree\n", "modhaven/edge/c.conf": "c\n"}
    snapshots.write("other", other)
    assert {path.name for path in (folder / "other").rglob("*") if path.is_file()} == {
        "a.conf",
        "c.conf",
        "ABSENT",
    }
    assert snapshots.read("other") == other
    assert snapshots.difference("other", other) == ""


@pytest.mark.parametrize(
    ("tree", "shown"),
    [
        ({**DEFAULT, "modhaven/edge/a.conf": "one\n2\n"}, "-two\n+2\n"),
        ({"modhaven/edge/a.conf": "one\ntwo\n"}, "-b\n"),
        ({**DEFAULT, "modhaven/edge/new.conf": "new\n"}, "+new\n"),
    ],
)
def test_what_is_not_as_it_was_is_shown(tree: dict[str, str], shown: str) -> None:
    assert shown in snapshots.difference("default", tree)


def test_what_is_compared_is_what_nginx_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nginx = tmp_path / "etc/nginx"
    release = nginx / "modhaven.releases/1/modhaven/edge"
    release.mkdir(parents=True)
    (release / "a.conf").write_text(f"# {HASH}\n")
    (nginx / "modhaven").symlink_to("modhaven.releases/1/modhaven")
    (nginx / "modhaven.pool").mkdir()
    (nginx / "modhaven.pool/upstream.conf").write_text("pool\n")
    tree = snapshots.published(tmp_path)
    # A certificate is another one each time.
    assert tree == {
        "modhaven/edge/a.conf": "# (SHA-256)\n",
        "modhaven.pool/upstream.conf": "pool\n",
    }
    assert snapshots.main("check", str(tmp_path), "default") == 1
    assert "make snapshots" in capsys.readouterr().out
    assert snapshots.main("write", str(tmp_path), "default") == 0
    assert snapshots.main("check", str(tmp_path), "default") == 0
