"""What the role client counts on: how the real go command goes on when a connection breaks."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.conftest import FakeUpstream, Reply
from tests.integration.test_app_go import GO

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
INFO = b'{"Version":"v1.0.0","Time":"2026-01-01T00:00:00Z"}'


@pytest.mark.parametrize(("again", "status"), [("/", 0), ("", 1)])
def test_go_asks_an_address_again_only_where_it_is_spelt_otherwise(
    tmp_path: Path, fake: FakeUpstream, again: str, status: int
) -> None:
    # As when a VIP moves under a request: one connection ends without an answer.
    fake.released.set()
    fake.script("example.com/moved/@v/v1.0.0.info", Reply(hang=True), Reply(body=INFO))
    fake.script("example.com/moved/@v/v1.0.0.mod", Reply(body=b"module example.com/moved\n"))
    done = subprocess.run(
        [GO, "list", "-m", "example.com/moved@v1.0.0"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "GOPROXY": f"{fake.url}|{fake.url}{again}",
            "GONOSUMDB": "*",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-modcacherw",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    assert ("EOF" in done.stderr) == bool(status)
