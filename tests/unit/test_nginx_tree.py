"""Publishing nginx's configuration: all of it or none of it, also when a run is cut short."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.testing import patch_module_args
from tests.unit.ansible_plugin import load

if TYPE_CHECKING:
    from pathlib import Path

nginx_tree = load("modules/nginx_tree.py")

PACKAGE_ENTRY = "# the Debian package's own\n"


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the module may catch it."""


class FakeNginx:
    """Nginx and systemd, as far as the module knows them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.active = True
        self.refusal = ""
        self.reload_failure: BaseException | None = None
        self.checked: list[dict[str, str]] = []
        self.loaded: list[dict[str, str]] = []

    def is_active(self) -> bool:
        return self.active

    def check(self, entry: Path) -> None:
        # Like `nginx -t -c`: relative includes are below the directory of the file.
        assert entry.read_text() == nginx_tree.ENTRY
        self.checked.append(nginx_tree.read_tree(entry.parent / "modhaven"))
        if self.refusal:
            raise nginx_tree.PublishError(self.refusal)

    def reload(self, timeout_seconds: float) -> None:
        assert timeout_seconds > 0
        assert (self.root / "nginx.conf").read_text() == nginx_tree.ENTRY
        if self.reload_failure:
            raise self.reload_failure
        self.loaded.append(nginx_tree.read_tree(self.root / "modhaven"))


class Host:
    """An nginx directory, and the module run on it as Ansible would."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.nginx = FakeNginx(root)
        self.capsys = capsys

    def run(self, owner: str = "edge", *, check_mode: bool = False, **files: str) -> dict[str, Any]:
        """The module's result for `files` {name without .conf: content}."""
        arguments = {
            "root": str(self.root),
            "owner": owner,
            "files": {f"{name}.conf": text for name, text in files.items()},
            "_ansible_check_mode": check_mode,
            "_ansible_diff": True,
        }
        self.capsys.readouterr()
        with patch_module_args(arguments), pytest.raises(SystemExit):
            nginx_tree.main()
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return result

    def live(self) -> dict[str, str]:
        files: dict[str, str] = nginx_tree.read_tree(self.root / "modhaven")
        return files

    def state(self) -> dict[str, str]:
        """Everything a reader of the directory sees, without the releases that are not live."""
        seen = {f"modhaven/{name}": text for name, text in self.live().items()}
        link = self.root / "modhaven"
        seen["link"] = str(link.readlink()) if link.is_symlink() else ""
        for name in ("nginx.conf", "modhaven.loaded"):
            path = self.root / name
            seen[name] = path.read_text() if path.exists() else ""
        return seen

    def everything(self) -> dict[str, str]:
        """Every file and link below the directory."""
        return {
            str(path.relative_to(self.root)): str(path.readlink())
            if path.is_symlink()
            else path.read_text()
            for path in sorted(self.root.rglob("*"))
            if path.is_symlink() or path.is_file()
        }

    def releases(self) -> list[str]:
        return sorted(path.name for path in (self.root / "modhaven.releases").iterdir())


@pytest.fixture
def host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Host:
    root = tmp_path / "nginx"
    root.mkdir()
    (root / "nginx.conf").write_text(PACKAGE_ENTRY)
    host = Host(root, capsys)
    monkeypatch.setattr(nginx_tree, "Nginx", lambda: host.nginx)
    return host


# --- publishing


def test_the_first_publication(host: Host) -> None:
    result = host.run(a="one", b="two")
    assert (result["changed"], result["reloaded"]) == (True, True)
    assert host.live() == {"edge/a.conf": "one", "edge/b.conf": "two"}
    assert (host.root / "nginx.conf").read_text() == nginx_tree.ENTRY
    assert (host.root / "modhaven").is_symlink()
    assert host.state()["link"] == f"modhaven.releases/{result['release']}/modhaven"
    assert host.state()["modhaven.loaded"] == result["release"] + "\n"
    assert host.nginx.checked == host.nginx.loaded == [host.live()]


def test_the_first_publication_where_nginx_has_no_directory_yet(host: Host) -> None:
    (host.root / "nginx.conf").unlink()
    host.root.rmdir()
    assert host.run(a="one")["changed"] is True
    assert host.live() == {"edge/a.conf": "one"}


def test_the_same_again_changes_nothing(host: Host) -> None:
    first = host.run(a="one")
    before = host.everything()
    second = host.run(a="one")
    assert second == first | {"changed": False, "reloaded": False, "diff": []}
    assert host.everything() == before
    assert len(host.nginx.checked) == len(host.nginx.loaded) == 1


def test_a_changed_file_is_checked_and_loaded(host: Host) -> None:
    first = host.run(a="one", b="two")
    second = host.run(a="1", b="two")
    assert (second["changed"], second["reloaded"]) == (True, True)
    assert second["release"] != first["release"]
    assert host.live() == {"edge/a.conf": "1", "edge/b.conf": "two"}
    assert host.nginx.loaded[-1] == host.live()


def test_a_file_that_is_not_named_any_more_is_gone(host: Host) -> None:
    host.run(a="one", b="two")
    assert host.run(a="one")["changed"] is True
    assert host.live() == {"edge/a.conf": "one"}


def test_the_files_of_another_owner_stay(host: Host) -> None:
    host.run("main", nginx="m")
    host.run("edge2", server="e2")
    host.run("edge", server="e")
    host.run("edge", other="e")
    assert host.live() == {
        "edge/other.conf": "e",
        "edge2/server.conf": "e2",
        "main/nginx.conf": "m",
    }


def test_an_owner_without_files_leaves(host: Host) -> None:
    host.run("main", nginx="m")
    host.run("edge", server="e")
    assert host.run("edge")["changed"] is True
    assert host.live() == {"main/nginx.conf": "m"}


def test_files_may_be_in_directories(host: Host) -> None:
    files = {"snippets/pool": "p"}
    host.run("edge", check_mode=False, **files)
    assert host.live() == {"edge/snippets/pool.conf": "p"}


def test_a_configuration_without_any_file(host: Host) -> None:
    assert host.run()["changed"] is True
    assert (host.root / "modhaven").is_dir()
    assert host.run()["changed"] is False


def test_nginx_that_does_not_run_is_not_reloaded(host: Host) -> None:
    host.nginx.active = False
    result = host.run(a="one")
    assert (result["changed"], result["reloaded"]) == (True, False)
    assert host.nginx.loaded == []
    assert host.run(a="one")["changed"] is False


def test_going_back_to_an_earlier_configuration(host: Host) -> None:
    first = host.run(a="one")
    host.run(a="two")
    third = host.run(a="one")
    assert third["release"] == first["release"]
    assert host.live() == {"edge/a.conf": "one"}


# --- what somebody else changed


def test_an_entry_file_that_the_package_put_back_is_replaced(host: Host) -> None:
    host.run(a="one")
    (host.root / "nginx.conf").write_text(PACKAGE_ENTRY)
    assert host.run(a="one")["changed"] is True
    assert (host.root / "nginx.conf").read_text() == nginx_tree.ENTRY
    assert host.run(a="one")["changed"] is False


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_live_file_edited_by_hand_is_put_right(host: Host, times: int) -> None:
    host.run(a="one")
    for _ in range(times):
        (host.root / "modhaven/edge/a.conf").write_text("edited")
        assert host.run(a="one")["changed"] is True
        assert host.live() == {"edge/a.conf": "one"}
        assert host.nginx.loaded[-1] == host.live()
        assert host.run(a="one")["changed"] is False


def test_a_live_file_added_by_hand_is_taken_away(host: Host) -> None:
    host.run(a="one")
    (host.root / "modhaven/edge/b.conf").write_text("added")
    host.run(a="one")
    assert host.live() == {"edge/a.conf": "one"}


def test_what_an_editor_left_is_no_text_and_taken_away(host: Host) -> None:
    host.run(a="one")
    (host.root / "modhaven/edge/.a.conf.swp").write_bytes(b"b0VIM\0\xff\xfe")
    assert host.run(owner="main", m="two")["changed"] is True
    assert host.run(a="one")["changed"] is True
    assert host.live() == {"edge/a.conf": "one", "main/m.conf": "two"}


def test_an_edited_file_stays_when_the_check_fails(host: Host) -> None:
    host.run(a="one")
    (host.root / "modhaven/edge/a.conf").write_text("edited")
    before = host.state()
    host.nginx.refusal = "no"
    assert host.run(a="one")["failed"] is True
    assert host.state() == before


# --- what goes wrong


def test_a_refused_configuration_leaves_everything_as_it_was(host: Host) -> None:
    host.run(a="one")
    before = host.state()
    host.nginx.refusal = "nginx -t refused the new configuration: unknown directive"
    result = host.run(a="bad")
    assert result["failed"] is True
    assert "unknown directive" in result["msg"]
    assert host.state() == before
    assert len(host.nginx.loaded) == 1


def test_a_refused_first_configuration_leaves_the_package_s_own(host: Host) -> None:
    host.nginx.refusal = "no"
    assert host.run(a="bad")["failed"] is True
    assert host.live() == {}
    assert (host.root / "nginx.conf").read_text() == PACKAGE_ENTRY
    assert not (host.root / "modhaven.loaded").exists()


def test_a_refused_configuration_leaves_no_release_behind(host: Host) -> None:
    host.run(a="one")
    before = host.releases()
    host.nginx.refusal = "no"
    host.run(a="bad")
    assert host.releases() == before


def test_a_failed_reload_puts_link_and_entry_back(host: Host) -> None:
    host.run(a="one")
    before = host.state()
    host.nginx.reload_failure = nginx_tree.PublishError("no new worker")
    result = host.run(a="two")
    assert result["failed"] is True
    assert "no new worker" in result["msg"]
    assert host.state() == before


def test_a_failed_reload_puts_an_entry_back_that_was_not_ours(host: Host) -> None:
    host.run(a="one")
    (host.root / "nginx.conf").write_text(PACKAGE_ENTRY)
    before = host.state()
    host.nginx.reload_failure = nginx_tree.PublishError("no new worker")
    host.run(a="two")
    assert host.state() == before


@pytest.mark.parametrize("entry", [PACKAGE_ENTRY, None])
def test_a_failed_first_reload_puts_everything_back(host: Host, entry: str | None) -> None:
    if entry is None:
        (host.root / "nginx.conf").unlink()
    before = host.state()
    host.nginx.reload_failure = nginx_tree.PublishError("no new worker")
    assert host.run(a="one")["failed"] is True
    assert host.state() == before
    assert not (host.root / "modhaven").is_symlink()
    assert (host.root / "nginx.conf").exists() is (entry is not None)


def test_after_a_failed_reload_the_next_run_publishes(host: Host) -> None:
    host.run(a="one")
    host.nginx.reload_failure = nginx_tree.PublishError("no new worker")
    host.run(a="two")
    host.nginx.reload_failure = None
    result = host.run(a="two")
    assert (result["changed"], result["reloaded"]) == (True, True)
    assert host.live() == {"edge/a.conf": "two"}


# --- runs cut short


@pytest.mark.parametrize("step", ["write_release", "point_to", "write_entry", "prune", "reload"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_run_killed_at_any_step_is_completed_by_the_next(
    host: Host, monkeypatch: pytest.MonkeyPatch, step: str, when: str, *, earlier: bool
) -> None:
    if earlier:
        host.run(a="one")
        (host.root / "nginx.conf").write_text(PACKAGE_ENTRY)
    owner = host.nginx if step == "reload" else nginx_tree.Tree
    original = getattr(owner, step)

    def killed(*arguments: Any) -> None:
        if when == "after":
            original(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, killed)
        with pytest.raises(Killed):
            host.run(a="two")
    # What nginx would read now is a whole configuration, the old one or the new one.
    old = {"edge/a.conf": "one"} if earlier else {}
    assert host.live() in (old, {"edge/a.conf": "two"})
    was_loaded = (
        host.state()["modhaven.loaded"] == nginx_tree.release_name({"edge/a.conf": "two"}) + "\n"
    )
    result = host.run(a="two")
    assert result["changed"] is not was_loaded
    assert host.live() == {"edge/a.conf": "two"}
    assert host.nginx.loaded[-1] == host.live()
    assert host.run(a="two")["changed"] is False


@pytest.mark.parametrize("loaded", [None, "", "0123456789ab\n"])
def test_a_release_that_was_swapped_in_but_not_loaded_is_loaded(
    host: Host, loaded: str | None
) -> None:
    host.run(a="one")
    if loaded is None:
        (host.root / "modhaven.loaded").unlink()
    else:
        (host.root / "modhaven.loaded").write_text(loaded)
    result = host.run(a="one")
    assert (result["changed"], result["reloaded"]) == (True, True)
    assert len(host.nginx.loaded) == 2
    assert host.run(a="one")["changed"] is False


def test_a_half_written_release_of_a_killed_run_is_written_anew(host: Host) -> None:
    host.run(a="one")
    name = nginx_tree.release_name({"edge/a.conf": "two"})
    half = host.root / "modhaven.releases" / name / "modhaven/edge"
    half.mkdir(parents=True)
    (half / "a.conf").write_text("tw")
    (half / "junk.conf").write_text("x")
    host.run(a="two")
    assert host.live() == {"edge/a.conf": "two"}


def test_files_of_a_killed_swap_do_not_stop_the_next_run(host: Host) -> None:
    (host.root / "modhaven.new").symlink_to("nowhere")
    (host.root / "nginx.conf.new").write_text("half")
    host.run(a="one")
    assert sorted(path.name for path in host.root.iterdir()) == [
        "modhaven",
        "modhaven.loaded",
        "modhaven.releases",
        "nginx.conf",
    ]


# --- pruning


def test_old_releases_are_pruned_and_the_newest_stay(host: Host) -> None:
    names = []
    for number in range(6):
        names.append(host.run(a=str(number))["release"])
        age = host.root / "modhaven.releases" / names[-1]
        os.utime(age, (1000 + number, 1000 + number))
    assert host.releases() == sorted(names[-nginx_tree.RELEASES_KEPT :])


def test_the_live_release_is_never_pruned(host: Host) -> None:
    # Releases dated in the future, as by a host whose clock was wrong when they were made.
    for number in range(nginx_tree.RELEASES_KEPT):
        name = host.run(a=str(number))["release"]
        os.utime(host.root / "modhaven.releases" / name, (9e9 + number, 9e9 + number))
    last = host.run(a="last")
    assert host.live() == {"edge/a.conf": "last"}
    assert last["release"] in host.releases()
    assert len(host.releases()) == nginx_tree.RELEASES_KEPT


def test_refused_releases_do_not_push_the_live_one_out(host: Host) -> None:
    host.run(a="good")
    host.nginx.reload_failure = nginx_tree.PublishError("no new worker")
    for number in range(5):
        host.run(a=str(number))
    host.nginx.reload_failure = None
    (host.root / "nginx.conf").write_text(PACKAGE_ENTRY)
    host.run(a="good")
    assert host.live() == {"edge/a.conf": "good"}


# --- diff and check mode


def test_the_diff_names_each_changed_file_and_no_other(host: Host) -> None:
    host.run(changed="old", gone="g", same="s")
    diff = host.run(changed="new", fresh="f", same="s")["diff"]
    path = f"{host.root}/modhaven/edge"
    assert [(d["before_header"], d["before"], d["after"]) for d in diff] == [
        (f"{path}/changed.conf", "old", "new"),
        (f"{path}/fresh.conf", "", "f"),
        (f"{path}/gone.conf", "g", ""),
    ]
    assert all(d["before_header"] == d["after_header"] for d in diff)


@pytest.mark.parametrize("earlier", [True, False])
def test_check_mode_tells_and_changes_nothing(host: Host, *, earlier: bool) -> None:
    if earlier:
        host.run(a="one")
    before = host.everything()
    loads = len(host.nginx.loaded)
    result = host.run(a="two", check_mode=True)
    assert (result["changed"], result["reloaded"]) == (True, False)
    assert [d["after"] for d in result["diff"]] == ["two"]
    assert host.everything() == before
    assert len(host.nginx.loaded) == loads
    assert host.run(a="two")["release"] == result["release"]


def test_check_mode_of_what_is_live_says_unchanged(host: Host) -> None:
    host.run(a="one")
    assert host.run(a="one", check_mode=True)["changed"] is False


def test_check_mode_where_nginx_is_not_installed(host: Host) -> None:
    (host.root / "nginx.conf").unlink()
    host.root.rmdir()
    assert host.run(a="one", check_mode=True)["changed"] is True
    assert not host.root.exists()


# --- the names of releases


def test_a_release_is_named_after_names_and_contents() -> None:
    name = nginx_tree.release_name
    assert name({"a": "1", "b": "2"}) == name({"b": "2", "a": "1"})
    trees: list[dict[str, str]] = [{}, {"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": ""}]
    assert len({name(tree) for tree in trees}) == len(trees)
