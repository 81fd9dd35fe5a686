"""What all workers tell together, while one of them is only starting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modhaven import metrics

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_worker_that_has_made_its_file_and_not_filled_it_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(metrics.SHARED, str(tmp_path))
    (tmp_path / "counter_1.db").touch()
    (tmp_path / "gauge_livesum_1.db").write_bytes(bytes(4096))
    assert metrics.waiting_for_upstreams() == 0
    assert metrics.page([]) == b""
