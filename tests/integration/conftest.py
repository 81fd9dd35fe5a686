"""What several of these tests share: real nginx, and a way to show what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests import nginx
from tests.integration.pool_edge import Edge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the nginx program, unpacked."""
    return nginx.unpack(tmp_path_factory.mktemp("nginx"))


@pytest.fixture
def edge(tmp_path: Path, program: Path) -> Iterator[Edge]:
    """Give an edge whose pool manager and backends are the test's to start."""
    with Edge(tmp_path / "edge", program) as made:
        yield made


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a measured value past pytest's capture, so that every run shows it."""

    def said(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}", end="")  # noqa: T201 - a measured figure

    return said
