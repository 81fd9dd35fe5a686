"""The inventories that operators copy: Ansible reads them, and preflight finds nothing wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.lab.inventory import ROOT, read
from tests.unit.ansible_plugin import load

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
SHIPPED = sorted(path.parent for path in (ROOT / "inventories").glob("*/hosts.yml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_inventory_passes_preflight(path: Path) -> None:
    inventory = read(path)
    groups = {name: [host.name for host in hosts] for name, hosts in inventory.groups.items()}
    hostvars = {name: host.variables for name, host in inventory.hosts.items()}
    assert load("filter/inventory.py").inventory_problems(groups, hostvars) == []


def test_the_examples_are_of_three_and_of_six_hosts() -> None:
    sizes = {path.name: len(read(path).hosts) for path in SHIPPED if "example" in path.name}
    # The six-node example names a build machine beside its six nodes.
    assert sizes == {"example": 3, "example-six": 7}
