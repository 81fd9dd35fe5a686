"""The Vagrantfile holds for each provider and takes its machines from the inventory."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.lab.inventory import ROOT, read

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed")


def vagrant(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["vagrant", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MODHAVEN_INVENTORY": "inventories/lab", **environment},
    )


def validated(provider: str, path: str) -> None:
    done = vagrant("validate", VAGRANT_DEFAULT_PROVIDER=provider, PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lxc_validates() -> None:
    validated("lxc", os.environ["PATH"])


def test_virtualbox_validates(tmp_path: Path) -> None:
    # Vagrant validates for a provider only where it finds it, and asks VirtualBox for its version.
    manage = tmp_path / "VBoxManage"
    manage.write_text("#!/bin/sh\necho 7.0.20r163906\n")
    manage.chmod(0o755)
    validated("virtualbox", f"{tmp_path}:{os.environ['PATH']}")


def test_libvirt_validates() -> None:
    if "vagrant-libvirt" not in vagrant("plugin", "list").stdout:
        pytest.skip("the plugin vagrant-libvirt is not installed")
    validated("libvirt", os.environ["PATH"])


def test_each_host_of_the_inventory_is_a_machine() -> None:
    listed = vagrant("status", "--machine-readable").stdout.splitlines()
    machines = {line.split(",")[1] for line in listed if ",state," in line}
    assert machines == set(read(ROOT / "inventories/lab").hosts)


def test_a_host_line_more_is_a_machine_more(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    host = "extra1: {ansible_host: 10.0.3.29}"
    inventory.write_text(f"all:\n  children:\n    backends:\n      hosts:\n        {host}\n")
    # A state folder of its own, or .vagrant would remember the machine.
    state = str(tmp_path / "state")
    done = vagrant("status", MODHAVEN_INVENTORY=str(inventory), VAGRANT_DOTFILE_PATH=state)
    assert "extra1" in done.stdout


def test_a_wrong_inventory_is_one_sentence() -> None:
    done = vagrant("validate", MODHAVEN_INVENTORY="inventories/nowhere")
    assert done.returncode != 0
    assert "MODHAVEN_INVENTORY must name an inventory" in done.stdout + done.stderr
