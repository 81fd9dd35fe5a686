"""``modhaven pool`` as a part of the command; what it does, the integration tests show."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from tests.conftest import ROOT

from modhaven import cli
from modhaven.pool import operate, status
from modhaven.pool.paths import Paths
from modhaven.pool.status import PoolStatus

if TYPE_CHECKING:
    from pathlib import Path


def test_the_command_does_not_load_what_serve_has_to_prepare_first() -> None:
    """prometheus-client decides when it is loaded whether the workers share their counters."""
    code = "import sys, modhaven.cli; sys.exit('prometheus_client' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "app")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_all_paths_are_below_the_root(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path)
    assert paths.config == tmp_path / "etc/modhaven/pool.yml"
    assert paths.nginx_pid == tmp_path / "run/nginx.pid"


@pytest.mark.parametrize("seconds", ["x", "-1", "nan", "inf"])
def test_a_wait_is_a_number_of_seconds(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["pool", "drain", "b", f"--wait={seconds}"])
    assert raised.value.code == 2
    assert f"--wait: must be a number of seconds, not {seconds}" in capsys.readouterr().err


def test_a_check_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pool.yml"
    path.write_text("servers: [{name: a, address: 10.0.0.1, port: 1}]\n")
    assert cli.main(["pool", "check", str(path)]) == 0
    path.write_text("servers: []\n")
    assert cli.main(["pool", "check", str(path)]) == 2
    assert capsys.readouterr().err == (
        "modhaven: servers must be a list with at least one server\n"
    )


def test_a_daemon_that_does_not_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operate, "_START_SECONDS", 0.1)
    for words in (["status"], ["drain", "a"], ["undrain", "a"]):
        assert cli.main(["pool", "--root", str(tmp_path), *words]) == 2
        assert capsys.readouterr().err.startswith("modhaven: the pool manager does not run on ")


def test_a_name_that_is_a_path_removes_nothing_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = Paths.below(tmp_path)
    told = PoolStatus(
        time=time.time(), published=True, error="", kept=False, promoted=False, connections=0,
        baseline=0, reloads=0, servers=(),
    )  # fmt: skip
    for path in (paths.drained, paths.config.parent, paths.status.parent):
        path.mkdir(parents=True)
    status.write(paths.status, told)
    paths.config.touch()
    name = os.path.relpath(paths.config, paths.drained)
    for word in (name, str(paths.config)):
        assert cli.main(["pool", "--root", str(tmp_path), "undrain", word]) == 2
        assert f"{word} is no backend of this pool" in capsys.readouterr().err
    assert paths.config.exists()


def test_a_first_pool_without_its_template_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "etc/modhaven/pool.yml"
    path.parent.mkdir(parents=True)
    path.write_text("servers: [{name: a, address: 10.0.0.1, port: 1}]\n")
    assert cli.main(["pool", "--root", str(tmp_path), "render"]) == 1
    assert "upstream.conf.j2 cannot be rendered: " in capsys.readouterr().err
