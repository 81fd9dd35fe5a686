"""Playbooks whose checks are the controller's refuse --limit, which would leave those out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
# Unreachable: a host that is asked shows.
INVENTORY = """\
[edges]
edge1 ansible_host=127.0.0.11
[backends]
backend1 ansible_host=127.0.0.21
[all:vars]
ansible_port=1
"""


@pytest.mark.parametrize(
    ("playbook", "option"),
    [
        ("drain", "node=backend1"),
        ("undrain", "node=backend1"),
        ("purge", "negative=true"),
        ("remove_node", "node=backend1"),
        ("replace_node", "node=backend1"),
        ("rotate_certificates", "new_authority=true"),
    ],
)
def test_a_limit_is_refused_before_any_host_is_asked(
    playbook: str, option: str, tmp_path: Path
) -> None:
    inventory = tmp_path / "hosts"
    inventory.write_text(INVENTORY)
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", inventory,
         f"playbooks/{playbook}.yml", "-e", option, "--limit", "backend1"],
        cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_RETRIES": "0"},
    )  # fmt: skip
    assert done.returncode == 2, done.stdout
    assert "This playbook does not run with --limit" in done.stdout
    assert "UNREACHABLE" not in done.stdout
