"""Playbooks refuse --limit, which would leave out their checks, and --check, which would lie."""

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


OPTIONS = {
    "backup": "backup_store=false",
    "drain": "node=backend1",
    "purge": "negative=true",
    "remove_node": "node=backend1",
    "replace_node": "node=backend1",
    "restore": "backup=/nowhere",
    "rotate_certificates": "new_authority=true",
    "undrain": "node=backend1",
}


LIMIT = ("--limit", "backend1"), "This playbook does not run with --limit"
CHECK = ("--check",), "This playbook has no dry run"


@pytest.mark.parametrize(
    ("playbook", "words", "said"),
    [
        *((playbook, *LIMIT) for playbook in OPTIONS),
        # A purge has one (tests/e2e/test_purge.py).
        *((playbook, *CHECK) for playbook in OPTIONS if playbook != "purge"),
    ],
)
def test_what_it_cannot_do_is_refused_before_any_host_is_asked(
    playbook: str, words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    inventory = tmp_path / "hosts"
    inventory.write_text(INVENTORY)
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", inventory,
         f"playbooks/{playbook}.yml", "-e", OPTIONS[playbook], *words],
        cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_RETRIES": "0"},
    )  # fmt: skip
    assert done.returncode == 2, done.stdout
    assert said in done.stdout
    assert "UNREACHABLE" not in done.stdout
