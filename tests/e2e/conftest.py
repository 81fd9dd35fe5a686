"""What the end-to-end tests share: a lab that is up, and no fault left before or after them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from tests.lab import faults, remote
from tests.lab.inventory import Inventory
from tests.lab.inventory import lab as read_lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Say = Callable[[str], None]

HERE = "tests/e2e"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in str(item.path):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def lab() -> Inventory:
    return read_lab()


@pytest.fixture(scope="session", autouse=True)
def lab_is_up(lab: Inventory) -> Iterator[None]:
    """Fail everything with one sentence when there is no lab, and begin and end without faults."""
    silent = [name for name in lab.hosts if not remote.is_running(name)]
    if len(silent) == len(lab.hosts):
        pytest.exit("The lab is not up: run 'make up' first.", returncode=1)
    faults.restore_all()
    yield
    faults.restore_all()


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    """Print a measured value past pytest's capture, so that every run shows it."""

    def print_line(text: str) -> None:
        with capfd.disabled():
            sys.stdout.write(f"\n    {text}\n")
            sys.stdout.flush()

    return print_line
