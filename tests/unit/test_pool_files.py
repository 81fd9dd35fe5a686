"""Files that others read while they are replaced."""

from __future__ import annotations

import resource
import signal
from typing import TYPE_CHECKING

import pytest

from modhaven.pool import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def full() -> Iterator[None]:
    """No file may grow, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.usefixtures("full")
def test_a_full_disk_is_said_with_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large") as raised:
        files.replace(tmp_path / "b1", "a new disk\n")
    assert raised.value.filename == str(tmp_path / "b1")
    assert list(tmp_path.iterdir()) == []
