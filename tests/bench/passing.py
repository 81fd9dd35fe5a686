"""The least proxy in Python: gunicorn and urllib3, nothing kept, nothing verified."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import urllib3
from tests.conftest import ROOT, free_port, wait_for_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

_MIRROR = "BENCH_MIRROR"
_pool = urllib3.PoolManager(maxsize=32, retries=False)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Give what the mirror of the environment gives."""
    answer = _pool.request("GET", os.environ[_MIRROR] + environ["PATH_INFO"])
    start_response(f"{answer.status} -", [("Content-Length", str(len(answer.data)))])
    return [answer.data]


@contextlib.contextmanager
def passing_on(mirror: str) -> Iterator[str]:
    """Run it before ``mirror``, as many workers as a backend has; give its address."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--workers", str(os.cpu_count()), "--threads", "32",
         "--keep-alive", "75", "--bind", f"127.0.0.1:{port}", "--log-level", "warning",
         "tests.bench.passing:app"],
        cwd=ROOT, env={**os.environ, _MIRROR: mirror},
    )  # fmt: skip
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
