"""A wrong inventory ends `ansible-playbook site.yml` with its sentence, before any host is asked.

The hosts of these inventories are unreachable (port 1 of loopback addresses), so that a check that
came too late would show as an unreachable host, and nothing could ever be changed.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]

RIGHT: dict[str, Any] = {
    "edges": {
        "edge1": {"ansible_host": "127.0.0.11"},
        "edge2": {"ansible_host": "127.0.0.12"},
    },
    "backends": {
        "backend1": {"ansible_host": "127.0.0.21", "backend_weight": 3},
        "backend2": {"ansible_host": "127.0.0.22"},
        "backend3": {"ansible_host": "127.0.0.23", "backend_backup": True},
    },
    "clients": {"client1": {"ansible_host": "127.0.0.51"}},
}


class Controller:
    """Runs site.yml on an inventory of its own directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(
        self, groups: dict[str, Any], *options: str, **variables: object
    ) -> subprocess.CompletedProcess[str]:
        content = {
            "all": {
                "vars": {"ansible_port": 1, "ansible_user": "nobody", **variables},
                "children": {name: {"hosts": hosts} for name, hosts in groups.items()},
            }
        }
        inventory = self.directory / "hosts.yml"
        inventory.write_text(yaml.safe_dump(content))
        return subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible-playbook"),
                *("-i", str(inventory), "site.yml", *options),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={
                **os.environ,
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_LOCAL_TEMP": str(self.directory / "tmp"),
                "ANSIBLE_SSH_RETRIES": "0",
            },
        )


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def right() -> dict[str, Any]:
    return copy.deepcopy(RIGHT)


def is_refused(
    result: subprocess.CompletedProcess[str], *sentences: str, checked_on: str = "localhost"
) -> None:
    """The run failed at the check of the inventory, said `sentences`, and asked no host."""
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert "TASK [preflight : Check the inventory" in output
    for sentence in sentences:
        assert sentence in output, output
    assert "TASK [preflight : Gather" not in output, output
    assert "UNREACHABLE" not in output, output
    assert "Traceback" not in output, output
    recap = output.partition("PLAY RECAP")[2].strip().splitlines()[1:]
    assert [line.split()[0] for line in recap] == [checked_on]
    assert "changed=0" in recap[0]


def test_no_edges(controller: Controller) -> None:
    groups = right() | {"edges": {}}
    is_refused(
        controller.run(groups),
        "The group 'edges' has no host: add at least one host line under 'edges' in the inventory.",
    )


def test_no_group_of_edges_at_all(controller: Controller) -> None:
    groups = right()
    del groups["edges"]
    is_refused(controller.run(groups), "The group 'edges' has no host:")


def test_two_hosts_with_one_address(controller: Controller) -> None:
    groups = right()
    groups["backends"]["backend2"]["ansible_host"] = "127.0.0.21"
    is_refused(
        controller.run(groups),
        "backend1 and backend2 have the same address 127.0.0.21:"
        " give each its own 'ansible_host' (or 'modhaven_address').",
    )


def test_addresses_that_are_templates_are_compared_as_what_they_say(
    controller: Controller,
) -> None:
    groups = right()
    groups["backends"]["backend2"]["modhaven_address"] = "{{ site_net }}.21"
    groups["backends"]["backend1"]["modhaven_address"] = "{{ site_net }}.21"
    is_refused(
        controller.run(groups, site_net="127.0.0"),
        "backend1 and backend2 have the same address 127.0.0.21:",
    )


def test_every_backend_a_backup(controller: Controller) -> None:
    groups = right()
    for variables in groups["backends"].values():
        variables["backend_backup"] = True
    is_refused(
        controller.run(groups),
        "Every backend has 'backend_backup: true': at least one backend must not be a backup.",
    )


def test_a_vip_outside_the_subnet(controller: Controller) -> None:
    is_refused(
        controller.run(right(), vip_address="192.0.2.100"),
        "'vip_address' 192.0.2.100/24 is outside the subnet of edge1 (127.0.0.11):",
        "'vip_address' 192.0.2.100/24 is outside the subnet of edge2 (127.0.0.12):",
    )


def test_a_weight_of_nothing_and_another_problem_are_both_told(controller: Controller) -> None:
    groups = right()
    groups["backends"]["backend1"]["backend_weight"] = 0
    groups["clients"]["client1"]["ansible_host"] = "127.0.0.11"
    is_refused(
        controller.run(groups),
        "'backend_weight' of backend1 is 0: give a whole number from 1 to 1000.",
        "edge1 and client1 have the same address 127.0.0.11:",
    )


def test_credentials_that_are_not_whole_are_named_and_never_shown(controller: Controller) -> None:
    ssh = {"host": "git.corp.example", "key": "{{ key_of_git }}"}
    result = controller.run(
        right(),
        "-vvv",
        key_of_git="-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n",
        backend_upstreams=[{"url": "direct", "modules": ["*.corp.example"]}],
        backend_direct_ssh=[ssh],
        backend_direct_https=[{"host": "git.corp.example", "user": "u", "password": "s3cret two"}],
    )
    is_refused(
        result,
        "'backend_direct_ssh' has no 'host_key' for git.corp.example: add it there.",
        "The 'password' of git.corp.example in 'backend_direct_https' has a blank,",
    )
    assert "s3cret" not in result.stdout + result.stderr


def test_a_wrong_inventory_is_refused_in_check_mode_too(controller: Controller) -> None:
    is_refused(controller.run(right() | {"backends": {}}, "--check"), "group 'backends'")


@pytest.mark.parametrize("tag", ["publish", "vip"])
def test_a_wrong_inventory_is_refused_whatever_the_tags(controller: Controller, tag: str) -> None:
    result = controller.run(right() | {"backends": {}}, "--tags", tag)
    is_refused(result, "group 'backends'")


def test_a_wrong_inventory_is_refused_when_the_run_is_limited(controller: Controller) -> None:
    groups = right()
    groups["backends"]["backend1"]["backend_weight"] = 0
    result = controller.run(groups, "--limit", "backend2")
    is_refused(result, "'backend_weight' of backend1 is 0", checked_on="backend2")


def test_a_right_inventory_goes_on_to_the_hosts(controller: Controller) -> None:
    result = controller.run(right(), vip_address="127.0.0.100")
    assert result.returncode != 0
    assert "PLAY [Check the hosts]" in result.stdout
    assert "UNREACHABLE" in result.stdout
