"""``modhaven serve`` as somebody who tries it types it: no file, flags at most."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.conftest import ROOT, TEST_SUMDB, GoTestServer, free_port, wait_for_port
from tests.integration.test_app_go import Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def command(home: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with (home.parent / "stderr").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "modhaven.cli", *arguments],
            cwd=home.parent, stdout=subprocess.DEVNULL, stderr=err, start_new_session=True,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT / "app")},
        )  # fmt: skip


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_flags_alone_make_a_goproxy(
    tmp_path: Path,
    home: Path,
    started: list[subprocess.Popen[bytes]],
    go_server: GoTestServer,
) -> None:
    port = free_port()
    process = command(
        home, "serve", "--listen", f"127.0.0.1:{port}", "--upstreams", go_server.root,
        "--sumdb", f"{TEST_SUMDB} http://127.0.0.1:9", "--upstream-retries", "0",
        "--upstream-timeouts-connect-seconds", "1", "--store-min-free-bytes", "0", "--workers", "1",
    )  # fmt: skip
    started.append(process)
    wait_for_port(port, process)
    printed = (tmp_path / "stderr").read_text()
    assert f"keeps modules in {home}/.cache/modhaven/store" in printed
    line = re.search(r"^  go env -w GOPROXY=(\S+)$", printed, re.MULTILINE)
    assert line is not None
    client = Client(tmp_path / "client", line[1])
    assert "v1.5.2" in client.go("list", "-m", "-versions", "rsc.io/quote")
    client.build_and_run()
    assert (home / ".cache/modhaven/store/cache/download/rsc.io/quote/@v/v1.5.2.zip").is_file()
    process.terminate()
    assert process.wait(40) == 0
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_a_mistake_is_one_sentence_and_status_2(
    tmp_path: Path, home: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        free = f"127.0.0.1:{free_port()}"
        for arguments, sentence in (
            (["--listen", address], f"--listen {address} is taken by another program"),
            (["--listen", free, "--store", "file/x"], f"--store-path {tmp_path}/file/x cannot be"),
            (["--listen", free, "--wrokers", "1"], "unrecognized arguments: --wrokers 1"),
            (["--listen", free, "--hedge-max-seconds", "1m"], "--hedge-max-seconds must be a num"),
        ):
            process = command(home, "serve", *arguments)
            started.append(process)
            assert process.wait(20) == 2
            said = (tmp_path / "stderr").read_text()
            assert said.startswith(f"modhaven: {sentence}")
            assert said.count("\n") == 1
