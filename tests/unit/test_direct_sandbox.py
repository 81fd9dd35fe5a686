"""The sandbox: whatever a command does, it ends in time and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modhaven import direct_sandbox
from modhaven.direct_sandbox import Ended

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
DAEMON = "sh -c 'echo $$ >> pids; exec sleep 60'"
UNTIL_IT_RUNS = "until [ $(wc -l < pids) = 2 ]; do :; done"


def run(folder: Path, script: str, seconds: float = 20, max_file_bytes: int = 1 << 20) -> Ended:
    """Run a script that writes the ids of its processes to ``pids``."""
    program = folder / "go"
    program.write_text(f"#!/bin/sh\necho $$ >> pids\n{script}\n")
    program.chmod(0o700)
    return direct_sandbox.run(
        [str(program)],
        env={"PATH": "/usr/bin:/bin"},
        cwd=folder,
        seconds=seconds,
        max_file_bytes=max_file_bytes,
        on_stderr=lambda _: None,
    )


def left(folder: Path) -> list[int]:
    """Those of the script's processes that are still there, zombies included."""
    pids = [int(word) for word in (folder / "pids").read_text().split()]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_an_ordinary_command(tmp_path: Path) -> None:
    ended = run(tmp_path, "echo out; echo err >&2; pwd; cat; exit 3")
    assert ended == Ended(status=3, stdout=f"out\n{tmp_path}\n".encode(), stderr=b"err\n")
    assert left(tmp_path) == []


def test_nothing_is_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOFLAGS", "GIT_DIR", "SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD_X"):
        monkeypatch.setenv(name, "smuggled")
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        ended = run(tmp_path, "env; echo; ls -l /proc/self/fd; umask; ulimit -c")
    finally:
        os.close(held)
    assert b"smuggled" not in ended.stdout
    assert f"-> {tmp_path}\n".encode() not in ended.stdout
    assert ended.stdout.endswith(b"\n0\n")


@pytest.mark.parametrize(
    ("script", "cut"),
    [
        ("sleep 60", "time"),
        ("trap '' TERM INT HUP; while :; do sleep 1; done", "time"),
        ("(echo $$; sh -c 'echo $$ >> pids; exec sleep 60' & exec sleep 60) & sleep 60", "time"),
        ("yes", "output"),
        ("yes >&2", "output"),
    ],
    ids=["hangs", "ignores signals", "grandchildren", "floods stdout", "floods stderr"],
)
def test_what_does_not_end_is_ended(tmp_path: Path, script: str, cut: str) -> None:
    start = time.monotonic()
    ended = run(tmp_path, script, seconds=1.5 if cut == "time" else 30)
    assert ended.cut == cut
    assert time.monotonic() - start < 15
    assert ended.status == -signal.SIGKILL
    assert len(ended.stdout) <= direct_sandbox.MAX_STDOUT + (1 << 18)
    assert len(ended.stderr) <= direct_sandbox.MAX_STDERR + (1 << 18)
    assert left(tmp_path) == []


def test_what_a_good_command_leaves_running_is_ended_too(tmp_path: Path) -> None:
    script = f"{DAEMON} >/dev/null 2>&1 &\n{UNTIL_IT_RUNS}"
    start = time.monotonic()
    ended = run(tmp_path, script)
    assert (ended.status, ended.cut) == (0, "")
    assert time.monotonic() - start < 15
    assert left(tmp_path) == []


def test_a_daemon_that_keeps_the_pipes_open_is_ended(tmp_path: Path) -> None:
    script = f"{DAEMON} &\n{UNTIL_IT_RUNS}\necho last"
    start = time.monotonic()
    ended = run(tmp_path, script)
    assert (ended.status, ended.stdout) == (0, b"last\n")
    assert time.monotonic() - start < 15
    assert left(tmp_path) == []


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    ended = run(tmp_path, "exec head -c 3000000 /dev/zero > big", max_file_bytes=1 << 20)
    assert ended.status != 0
    assert (tmp_path / "big").stat().st_size == 1 << 20


def test_when_the_server_is_killed_the_command_goes_with_it(tmp_path: Path) -> None:
    program = tmp_path / "go"
    program.write_text(
        "#!/bin/sh\necho $$ >> pids\nsh -c 'echo $$ >> pids; exec sleep 60' & sleep 60\n"
    )
    program.chmod(0o700)
    code = (
        "import sys; from pathlib import Path; from modhaven import direct_sandbox\n"
        "direct_sandbox.run([sys.argv[1]], env={'PATH': '/usr/bin:/bin'}, cwd=Path(sys.argv[2]),"
        " seconds=50, max_file_bytes=1 << 20, on_stderr=lambda _: None)"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code, program, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT / "app")},
    )
    try:
        wait_until(
            lambda: (
                (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2
            )
        )
    finally:
        server.kill()
        server.wait()
    wait_until(lambda: all(state(pid) in ("", "Z") for pid in left(tmp_path)))


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def wait_until(condition: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    run(tmp_path, "true")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        run(tmp_path, "echo x; sleep 60", seconds=0.2)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_cannot_be_started_says_so(tmp_path: Path) -> None:
    ended = direct_sandbox.run(
        ["/nonexistent/go"],
        env={},
        cwd=tmp_path,
        seconds=10,
        max_file_bytes=1 << 20,
        on_stderr=lambda _: None,
    )
    assert ended.status in (126, 127)
    assert b"/nonexistent/go" in ended.stderr
