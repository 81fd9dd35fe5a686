"""playbooks/drill.yml and its role, whatever the hosts say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.unit.ansible_plugin import ROOT

PLAYBOOK = "playbooks/drill.yml"
INVENTORY = """
edges: {hosts: {e1: {}}}
backends: {hosts: {b1: {}}}
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text(INVENTORY)
    return path


def ansible(*words: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).parent / "ansible-playbook"
    return subprocess.run(
        [command, *words],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_limit_is_refused_before_anything_is_done(inventory: Path) -> None:
    done = ansible("-i", str(inventory), PLAYBOOK, "--limit", "b1", "-e", "drill_scenarios=list")
    assert done.returncode != 0
    assert "This playbook does not run with --limit" in done.stdout


def test_the_drills_own_playbooks_get_the_options_of_the_inventory(
    inventory: Path, tmp_path: Path
) -> None:
    """What the drill itself was given on the command line it does not hear of."""
    play = tmp_path / "show.yml"
    play.write_text(
        yaml.safe_dump(
            [
                {
                    "hosts": "localhost",
                    "gather_facts": False,
                    "vars_files": [
                        str(ROOT / "roles/drill" / part / "main.yml")
                        for part in ("defaults", "vars")
                    ],
                    "tasks": [
                        {
                            "ansible.builtin.copy": {
                                "content": "{{ _drill_plan.playbook | to_json }}",
                                "dest": str(tmp_path / "playbook.json"),
                                "mode": "0600",
                            }
                        }
                    ],
                }
            ]
        )
    )
    options = "{drill_playbook_options: [--vault-password-file, '/a b', -e, app_release=7]}"
    done = ansible("-i", str(inventory), str(play), "-e", options)
    assert done.returncode == 0, done.stdout + done.stderr
    words = yaml.safe_load((tmp_path / "playbook.json").read_text())
    assert words[0].endswith("/ansible-playbook")
    assert words[1:] == [
        f"--inventory={inventory}", "--vault-password-file", "/a b", "-e", "app_release=7",
    ]  # fmt: skip
