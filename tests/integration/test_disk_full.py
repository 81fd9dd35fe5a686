"""A disk that takes no more: a clear refusal, not ready, and nothing half-written."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import FakeUpstream, Reply
from tests.integration.test_app_go import Servers, serve, stored
from tests.unit.test_wsgi import BASE, MOD, make_zip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.test_app_go import Server

__all__ = ["serve"]
pytestmark = pytest.mark.integration
BIG = make_zip(os.urandom(2 << 20))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Take every block that is left."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def nothing_half_written(server: Server) -> bool:
    left = [path for name in ("tmp", "unverified") for path in (server.store / name).glob("**/*")]
    return stored(server) == [] and left == []


def test_a_full_disk(serve: Servers, fake: FakeUpstream, small_disk: Path) -> None:
    fake.script(f"{BASE}.zip", Reply(body=BIG))
    fake.script(f"{BASE}.mod", Reply(body=MOD))
    server = serve(fake.url, sumdb="off", store={"path": f"{small_disk}/s", "min_free_bytes": 0})
    server.store = small_disk / "s"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(3 << 20))
    answer = server.get(f"{BASE}.zip")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (503, "no-store")
    assert "No space left on device: free some space" in answer.text
    assert nothing_half_written(server)

    fill(filler)
    assert "No space left" in server.get(f"{BASE}.mod").text
    ready = server.get("readyz")
    assert (ready.status_code, "No space left" in ready.text) == (503, True)
    assert server.get("healthz").status_code == 200
    assert nothing_half_written(server)

    filler.unlink()
    assert server.get("readyz").status_code == 200
    assert server.get(f"{BASE}.zip").content == BIG


def test_a_file_that_cannot_grow(serve: Servers, fake: FakeUpstream) -> None:
    fake.script(f"{BASE}.zip", Reply(body=BIG))
    server = serve(fake.url, sumdb="off", workers=1)
    arbiter = server.process.pid
    children = Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()
    for worker in map(int, children):
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    answer = server.get(f"{BASE}.zip")
    assert (answer.status_code, "File too large" in answer.text) == (503, True)
    assert nothing_half_written(server)
