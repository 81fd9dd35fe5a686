"""What holds for playbooks whatever the hosts say."""

from __future__ import annotations

import yaml
from tests.conftest import ROOT

DRAIN = yaml.safe_load((ROOT / "playbooks/tasks/drain.yml").read_text())


def test_a_drain_says_first_how_to_let_the_node_in_again() -> None:
    """Ansible rescues nothing after ^C, nor on a host that cannot be reached any more."""
    assert "playbooks/undrain.yml -e node={{ node }}" in DRAIN[0]["ansible.builtin.debug"]["msg"]


def test_whichever_command_drains_gives_the_reason_that_lets_in_again() -> None:
    """An edge that comes back between the two is drained by the second one."""
    commands = [
        task["ansible.builtin.command"]["argv"]
        for task in DRAIN
        if "ansible.builtin.command" in task
    ]
    assert len(commands) == 2
    for words in commands:
        assert words[words.index("--reason") + 1] == "{{ drain_reason }}"
