"""The command: its exit status and its one-sentence errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from modhaven import __version__, cli, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from modhaven.config import Config


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out == f"modhaven {__version__}\n"


def test_check_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "any name"
    file.write_text("workers: 4\n")
    assert cli.main(["check-config", str(file)]) == 0
    file.write_text("worker: 4\n")
    assert cli.main(["check-config", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("modhaven: worker is not a configuration key")
    assert error.count("\n") == 1


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Config]:
    configs: list[Config] = []

    def run(load: Callable[[], Config]) -> None:
        configs.append(load())

    monkeypatch.setattr(serve, "run", run)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # As under systemd, which holds the socket: port 3000 of this machine may be in use.
    monkeypatch.setenv("LISTEN_FDS", "1")
    return configs


def test_serve_without_a_file_says_what_to_set(
    served: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    assert cli.main(["serve", "--ca-file", str(ca)]) == 0
    assert "go env -w GOPROXY=http://127.0.0.1:3000" in capsys.readouterr().err
    assert served[0].store.path == tmp_path / "cache" / "modhaven" / "store"
    assert served[0].upstreams[0].name == "goproxy.cn"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "0"], "--workers must be"),
        (["--upstreams", "directly"], "--upstreams 'directly' is not an http:// or https:// URL"),
        (["--ca-file", "/nonexistent"], "--ca-file /nonexistent does not exist"),
        (["--config", "/nonexistent"], "cannot be read"),
    ],
)
def test_mistakes_end_with_status_2(
    served: list[Config],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    assert cli.main(["serve", *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert served == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["serve", "--wokers", "2"], "unrecognized arguments: --wokers 2"),
        (["serve", "--work", "2"], "unrecognized arguments: --work 2"),
        (["serve", "--workers"], "argument --workers: expected one argument"),
        (["server"], "invalid choice: 'server'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_what_is_no_command_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert sentence in error
    assert error.startswith("modhaven: ")
    assert error.count("\n") == 1
