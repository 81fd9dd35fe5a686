"""A child process that is bounded in time, output and file size, and leaves nothing behind.

It leads a session and a process group of its own. At its end, whatever the end was, the whole group
is killed and reaped. When this process dies first, a guard in the group kills it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

MAX_STDOUT = 32 << 20
MAX_STDERR = 4 << 20
_CHUNK_BYTES = 1 << 16
_PR_SET_CHILD_SUBREAPER = 36
# Standard input is a pipe whose other end only we hold: its end of file is our death. In blocks of
# 512 bytes, as POSIX has it, $1 bounds a file's size.
_GUARDED = """exec 3<&0 </dev/null
{ read -r _ <&3; kill -s KILL 0; } >/dev/null 2>&1 &
ulimit -c 0 && ulimit -f "$1" && shift && exec "$@" 3<&-"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended: ``cut`` is ``time`` or ``output`` where it was not left to end."""

    status: int
    stdout: bytes
    stderr: bytes
    cut: str = ""


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    seconds: float,
    max_file_bytes: int,
    on_stderr: Callable[[bytes], None],
) -> Ended:
    """Run ``command`` with nothing but ``env``; ``on_stderr`` sees each piece of it at once.

    Raises OSError when nothing could be started.
    """
    _adopt_orphans()
    end = time.monotonic() + seconds
    blocks = str(max(1, max_file_bytes // 512))
    confined = ["/bin/sh", "-c", _GUARDED, "sh", blocks, *_no_new_privileges(), *command]
    process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell sees them as code
        confined,
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        reading = _Reading(process, on_stderr)
        try:
            cut = reading.until(end)
        finally:
            # Not yet waited for, so its number, which is the group's, cannot be another's.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _reap(process.pid)
        reading.rest()
    stdout, stderr = reading.stdout, reading.stderr
    return Ended(status=process.returncode, stdout=bytes(stdout), stderr=bytes(stderr), cut=cut)


class _Reading:
    """What a process writes, until it ends or has to be ended."""

    def __init__(
        self, process: subprocess.Popen[bytes], on_stderr: Callable[[bytes], None]
    ) -> None:
        if process.stdout is None or process.stderr is None:
            raise ValueError("the process was started without pipes")
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._pid = process.pid
        self._on_stderr = on_stderr
        self._open = {process.stdout.fileno(): self.stdout, process.stderr.fileno(): self.stderr}
        for descriptor in self._open:
            os.set_blocking(descriptor, False)

    def until(self, end: float) -> str:
        """Read until the process ends; return why it has to be ended, or nothing."""
        ended = os.pidfd_open(self._pid)
        try:
            with selectors.DefaultSelector() as selector:
                for descriptor in (ended, *self._open):
                    selector.register(descriptor, selectors.EVENT_READ)
                while (left := end - time.monotonic()) > 0:
                    ready = {key.fd for key, _ in selector.select(left)}
                    for descriptor in ready & self._open.keys():
                        if not self._read(descriptor):
                            selector.unregister(descriptor)
                    if len(self.stdout) > MAX_STDOUT or len(self.stderr) > MAX_STDERR:
                        return "output"
                    if ended in ready:
                        return ""
                return "time"
        finally:
            os.close(ended)

    def rest(self) -> None:
        """Read what was written before the end; at most what pipes hold."""
        for descriptor in list(self._open):
            while self._read(descriptor):
                pass

    def _read(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, _CHUNK_BYTES) if descriptor in self._open else b""
        except BlockingIOError:
            return False
        if not data:
            self._open.pop(descriptor, None)
            return False
        kept = self._open[descriptor]
        kept += data
        if kept is self.stderr:
            self._on_stderr(data)
        return True


def _no_new_privileges() -> list[str]:
    setpriv = shutil.which("setpriv", path=os.defpath + ":/usr/bin")
    return [setpriv, "--no-new-privs", "--"] if setpriv else []


def _adopt_orphans() -> None:
    """Become the parent of the group's processes whose own parent dies, to reap them (prctl(2)).

    A container's first process often reaps nobody.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap(group: int) -> None:
    """Wait for all that is left of a killed group."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-group, 0)
