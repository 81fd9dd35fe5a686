"""Several directories, files and links in one execution, on real files."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shlex
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from tests.unit.ansible_plugin import is_one_sentence, load

host_files = load("modules/host_files.py")

OWN = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
NOBODY = {"owner": "nobody-such", "group": "nobody-such"}
OTHERS = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files to others")


class Host:
    """A directory, and the module run on what is in it as Ansible would."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.capsys = capsys

    def run(self, *, check_mode: bool = False, diff: bool = True, **options: Any) -> dict[str, Any]:
        for kind in ("directories", "files"):
            options[kind] = [OWN | entry for entry in options.get(kind, [])]
        arguments = {**options, "_ansible_check_mode": check_mode, "_ansible_diff": diff}
        self.capsys.readouterr()
        with patch_module_args(arguments), pytest.raises(SystemExit):
            host_files.main()
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return result

    def path(self, name: str) -> str:
        return str(self.root / name)

    def changes(self, **options: Any) -> list[str]:
        """What a run says it changed, without the root; it must not fail."""
        result = self.run(**options)
        assert not result.get("failed"), result
        assert result["changed"] is bool(result["changed_paths"])
        return [os.path.relpath(path, self.root) for path in result["changed_paths"]]

    def everything(self) -> dict[str, tuple[str, int]]:
        """Every path below the root, with its content or target, and mode."""
        return {
            str(path.relative_to(self.root)): (
                f"-> {path.readlink()}"
                if path.is_symlink()
                else path.read_text()
                if path.is_file()
                else "/",
                stat.S_IMODE(path.lstat().st_mode),
            )
            for path in sorted(self.root.rglob("*"))
        }

    def file(self, name: str, content: str = "new\n", **more: str) -> dict[str, str]:
        return {"path": self.path(name), "content": content, **more}

    def validator(self, script: str) -> str:
        """A command that runs `script`, in which `path` is the file."""
        return shlex.join(
            [sys.executable, "-c", f"import os, sys; path = sys.argv[1]; {script}", "%s"]
        )


@pytest.fixture
def host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(tmp_path, capsys)


def everything(host: Host) -> dict[str, Any]:
    """Options with one of each kind."""
    (host.root / "old").mkdir(exist_ok=True)
    (host.root / "old" / "file").write_text("old\n")
    return {
        "directories": [{"path": host.path("a/b"), "mode": "0750"}],
        "files": [
            host.file("a/b/secret", mode="0640", validate="grep -q new %s"),
            host.file("a/public"),
        ],
        "links": [{"path": host.path("a/link"), "target": "public"}],
        "absent": [host.path("old"), host.path("never")],
    }


def test_everything_is_put_in_place_at_once(host: Host) -> None:
    assert host.changes(**everything(host)) == ["a/b", "a/b/secret", "a/public", "a/link", "old"]
    assert host.everything() == {
        "a": ("/", 0o750),
        "a/b": ("/", 0o750),
        "a/b/secret": ("new\n", 0o640),
        "a/link": ("-> public", 0o777),
        "a/public": ("new\n", 0o644),
    }


def test_the_same_again_changes_nothing(host: Host) -> None:
    options = everything(host)
    host.run(**options)
    before = {path: path.lstat() for path in host.root.rglob("*")}
    result = host.run(**options)
    assert (result["changed"], result["changed_paths"], result["diff"]) == (False, [], [])
    assert {path: path.lstat().st_ino for path in host.root.rglob("*")} == {
        path: seen.st_ino for path, seen in before.items()
    }


def test_check_mode_foresees_the_same_and_changes_nothing(host: Host) -> None:
    options = everything(host)
    before = host.everything()
    foreseen = host.run(check_mode=True, **options)
    assert host.everything() == before
    assert foreseen["diff"]
    done = host.run(**options)
    assert foreseen["changed_paths"] == done["changed_paths"]
    assert foreseen["diff"] == done["diff"]


def test_check_mode_where_user_and_group_are_yet_to_be_created(host: Host) -> None:
    (host.root / "there").mkdir()
    (host.root / "there" / "same").write_text("new\n")
    options: dict[str, Any] = {
        "directories": [{"path": host.path(name), **NOBODY} for name in ("there", "missing")],
        "files": [host.file(name, **NOBODY) for name in ("there/same", "there/new", "missing/new")],
    }
    expected = ["there", "missing", "there/same", "there/new", "missing/new"]
    assert host.changes(check_mode=True, **options) == expected
    refused = host.run(**options)
    assert refused["failed"]
    assert "nobody-such" in refused["msg"]


def test_a_user_that_is_not_there_leaves_the_file_as_it_was(host: Host) -> None:
    (host.root / "file").write_text("old\n")
    before = host.everything()
    assert host.run(files=[host.file("file", **NOBODY)])["failed"]
    assert host.everything() == before


# --- files


def test_a_refused_file_keeps_every_file_as_it_was(host: Host) -> None:
    for name in ("first", "second", "third"):
        (host.root / name).write_text("old\n")
    before = host.everything()
    script = "print('line 1: no.\\nreally', file=sys.stderr); sys.exit(1)"
    result = host.run(
        files=[
            host.file("first", mode="0600"),
            host.file("second", validate=host.validator(script)),
            host.file("third"),
        ],
        absent=[host.path("third")],
    )
    assert result["failed"]
    assert result["msg"].startswith(host.path("second"))
    assert result["msg"].endswith("said: line 1: no. really.")
    assert "\n" not in result["msg"]
    assert host.everything() == before


@pytest.mark.parametrize(
    ("script", "said"),
    [("print('no'); sys.exit(1)", "no"), ("sys.exit(3)", "exit status 3")],
)
def test_whatever_a_checker_says_is_told_in_a_sentence(host: Host, script: str, said: str) -> None:
    command = host.root / "check"
    command.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
    command.chmod(0o755)
    result = host.run(files=[host.file("file", validate=f"{command} %s")])
    assert result["msg"].endswith(f"said: {said}.")
    assert is_one_sentence(result["msg"])


def test_what_is_checked_is_the_new_content_under_its_final_mode(host: Host) -> None:
    seen = host.root / "seen"
    script = f"open({str(seen)!r}, 'w').write(open(path).read() + oct(os.stat(path).st_mode))"
    entry = host.file("file", mode="0640", validate=host.validator(script))
    assert host.changes(files=[entry]) == ["file"]
    assert seen.read_text() == "new\n0o100640"
    seen.unlink()
    assert host.changes(files=[entry]) == []
    assert not seen.exists()


@OTHERS
def test_a_secret_has_its_owner_and_mode_before_its_content_and_when_it_is_in_place(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host.root / "secret").write_text("old\n")
    (host.root / "secret").chmod(0o644)
    seen: list[tuple[int, str, str]] = []

    def see(path: Path) -> None:
        seen.append((stat.S_IMODE(path.stat().st_mode), path.owner(), path.group()))

    write, replace = Path.write_bytes, Path.replace

    def write_and_see(path: Path, content: bytes) -> int:
        see(path)
        return write(path, content)

    def replace_and_see(path: Path, target: Path) -> Path:
        done = replace(path, target)
        see(done)
        return done

    monkeypatch.setattr(Path, "write_bytes", write_and_see)
    monkeypatch.setattr(Path, "replace", replace_and_see)
    nobody = {"owner": "nobody", "group": "nogroup", "mode": "0640"}
    files = [host.file("secret", **nobody), host.file("new", **nobody)]
    assert host.changes(files=files) == ["secret", "new"]
    assert seen == [(0o640, "nobody", "nogroup")] * 4


def test_mode_alone_is_corrected_and_the_file_stays_the_same_one(host: Host) -> None:
    host.run(directories=[{"path": host.path("d")}], files=[host.file("d/file")])
    (host.root / "d").chmod(0o777)
    (host.root / "d/file").chmod(0o666)
    inode = (host.root / "d/file").stat().st_ino
    options: dict[str, Any] = {
        "directories": [{"path": host.path("d")}],
        "files": [host.file("d/file")],
    }
    foreseen = host.run(check_mode=True, **options)
    assert host.everything() == {"d": ("/", 0o777), "d/file": ("new\n", 0o666)}
    result = host.run(**options)
    assert result == foreseen
    assert [(change["before"], change["after"]) for change in result["diff"]] == [
        ({"mode": "0777"}, {"mode": "0755"}),
        ({"mode": "0666"}, {"mode": "0644"}),
    ]
    assert host.everything() == {"d": ("/", 0o755), "d/file": ("new\n", 0o644)}
    assert (host.root / "d/file").stat().st_ino == inode


@OTHERS
def test_owner_and_group_alone_are_corrected(host: Host) -> None:
    host.run(files=[host.file("file")])
    nobody = host.file("file", owner="nobody", group="nogroup")
    assert host.changes(files=[nobody]) == ["file"]
    path = host.root / "file"
    assert (path.owner(), path.group()) == ("nobody", "nogroup")
    assert host.changes(files=[nobody]) == []


def test_bits_beyond_permissions_are_kept(host: Host) -> None:
    options = {"directories": [{"path": host.path("store"), "mode": "2750"}]}
    assert host.changes(**options) == ["store"]
    assert host.everything() == {"store": ("/", 0o2750)}
    assert host.changes(**options) == []


def test_content_is_written_as_it_is(host: Host) -> None:
    content = "no end, {{ braces }}, é, \t\r\n  %s"
    assert host.changes(files=[host.file("file", content)]) == ["file"]
    assert (host.root / "file").read_bytes() == content.encode()
    assert host.changes(files=[host.file("file", content)]) == []
    assert host.changes(files=[host.file("file", "")]) == ["file"]
    assert host.changes(files=[host.file("file", "")]) == []
    assert host.changes(files=[host.file("empty", "")]) == ["empty"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_its_target_left(host: Host) -> None:
    (host.root / "target").write_text("new\n")
    (host.root / "file").symlink_to("target")
    assert host.changes(files=[host.file("file")]) == ["file"]
    assert not (host.root / "file").is_symlink()
    assert (host.root / "target").read_text() == "new\n"


def test_a_file_where_a_directory_is_fails_with_its_path(host: Host) -> None:
    (host.root / "file").mkdir()
    result = host.run(files=[host.file("file")])
    assert result["failed"]
    assert host.path("file") in result["msg"]
    assert list(host.everything()) == ["file"]


def test_what_a_run_that_was_cut_short_left_is_gone_with_the_next(host: Host) -> None:
    (host.root / ".file.new").write_text("half")
    assert host.changes(files=[host.file("file")]) == ["file"]
    assert list(host.everything()) == ["file"]


# --- directories, links, absent


def test_a_directory_behind_a_link_stays_where_it_is(host: Host) -> None:
    (host.root / "disk").mkdir(mode=0o700)
    (host.root / "store").symlink_to("disk")
    assert host.changes(directories=[{"path": host.path("store")}]) == ["store"]
    assert host.everything() == {"disk": ("/", 0o755), "store": ("-> disk", 0o777)}


def test_a_directory_where_a_file_is_fails_with_its_path(host: Host) -> None:
    (host.root / "store").write_text("")
    result = host.run(directories=[{"path": host.path("store")}])
    assert result["failed"]
    assert host.path("store") in result["msg"]


@pytest.mark.parametrize("before", ["file", "other link", "dangling link"])
def test_a_link_replaces_what_is_no_directory(host: Host, before: str) -> None:
    (host.root / "host.pem").write_text("pem")
    link = host.root / "host.key"
    if before == "file":
        link.write_text("s3cret")
    else:
        link.symlink_to("." if before == "other link" else "nowhere")
    options: dict[str, Any] = {"links": [{"path": str(link), "target": "host.pem"}]}
    result = host.run(**options)
    assert result["changed_paths"] == [str(link)]
    assert "s3cret" not in json.dumps(result)
    assert str(link.readlink()) == "host.pem"
    assert host.changes(**options) == []


def test_absent_removes_a_link_and_not_what_it_leads_to(host: Host) -> None:
    (host.root / "kept").mkdir()
    (host.root / "link").symlink_to("kept")
    assert host.changes(absent=[host.path("link")]) == ["link"]
    assert list(host.everything()) == ["kept"]


# --- what is told


def test_diff_shows_before_and_after_of_each_file(host: Host) -> None:
    (host.root / "a").write_text("old\n")
    result = host.run(files=[host.file("a"), host.file("b")])
    assert result["diff"] == [
        {
            "before": before,
            "after": "new\n",
            "before_header": host.path(name),
            "after_header": host.path(name),
        }
        for name, before in (("a", "old\n"), ("b", ""))
    ]


def test_contents_are_told_by_diff_alone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        host_files.AnsibleModule,
        "log",
        lambda _self, message, log_args=None: logged.append(f"{message} {log_args}"),
    )
    result = host.run(diff=False, files=[host.file("a", "s3cret\n", validate="grep -q x %s")])
    assert result["failed"]
    result |= host.run(diff=False, files=[host.file("a", "s3cret\n")])
    assert result["changed"]
    assert any("Invoked with" in message for message in logged)
    assert "s3cret" not in json.dumps(result) + "".join(logged)
    # Of the entries only contents are hidden: messages and paths are not masked.
    assert result["changed_paths"] == [host.path("a")]
    (host.root / "a").write_text("s3cret before\n")
    assert host.run(absent=[host.path("a")])["diff"][0]["before"] == "present\n"
