"""What holds for playbooks whatever the hosts say."""

from __future__ import annotations

import hashlib
from typing import Any

import jinja2
import pytest
import yaml
from tests.conftest import ROOT

DRAIN = yaml.safe_load((ROOT / "playbooks/tasks/drain_backend.yml").read_text())


def test_a_drain_says_first_how_to_let_the_node_in_again() -> None:
    """Ansible rescues nothing after ^C, nor on a host that cannot be reached any more."""
    assert "playbooks/undrain.yml -e node={{ node }}" in DRAIN[0]["ansible.builtin.debug"]["msg"]


def test_whichever_command_drains_gives_the_reason_that_lets_in_again() -> None:
    """An edge that comes back between the two is drained by the second one."""
    tasks = [inner for task in DRAIN for inner in task.get("block", [task])]
    commands = [
        task["ansible.builtin.command"]["argv"]
        for task in tasks
        if "ansible.builtin.command" in task
    ]
    assert len(commands) == 2
    for words in commands:
        assert words[words.index("--reason") + 1] == "{{ drain_reason }}"


def _update_of_edges() -> dict[str, Any]:
    plays = yaml.safe_load((ROOT / "playbooks/update.yml").read_text())
    found: dict[str, Any] = plays[-1]
    return found


@pytest.mark.parametrize(
    ("left", "goes"),
    [
        (None, True),
        # An update that was cut short: its next run would take it for somebody's wish for ever.
        (_update_of_edges()["vars"]["vip_stay_out_text"], True),
        ("", False),
        ("maintenance\n", False),
    ],
)
def test_an_edge_is_kept_from_the_vip_as_long_as_somebody_wants_it(
    left: str | None, *, goes: bool
) -> None:
    (leave,) = (
        task["ansible.builtin.copy"]
        for task in yaml.safe_load((ROOT / "playbooks/tasks/leave_vip.yml").read_text())
        if "ansible.builtin.copy" in task
    )
    assert leave["force"] is False
    assert "vip_stay_out_text" in leave["content"]
    play = _update_of_edges()
    comes = next(
        task
        for task in play["tasks"][0]["always"]
        if task.get("ansible.builtin.file", {}).get("path") == leave["dest"]
    )
    environment = jinja2.Environment(autoescape=False)  # noqa: S701 - no HTML
    environment.filters["hash"] = lambda text, kind: hashlib.new(kind, text.encode()).hexdigest()
    seen = {"exists": False} if left is None else {
        "exists": True, "checksum": hashlib.sha1(left.encode()).hexdigest(),  # noqa: S324 - stat's
    }  # fmt: skip
    assert goes is environment.compile_expression(comes["when"])(
        _vip_stay_out={}, _vip_stayed_out={"stat": seen}, **play["vars"]
    )


@pytest.mark.parametrize(
    ("current", "applied", "goes_to"),
    [
        ("new", True, "old"),
        # Cut short before the app was started anew: the link alone is no rollback.
        ("old", True, "old"),
        ("old", False, ""),
    ],
)
def test_a_rollback_that_was_cut_short_goes_on(
    current: str, *, applied: bool, goes_to: str
) -> None:
    find, change = yaml.safe_load((ROOT / "playbooks/rollback.yml").read_text())
    (choose,) = (
        task["ansible.builtin.set_fact"]
        for task in find["tasks"]
        if "ansible.builtin.set_fact" in task
    )
    template = jinja2.Environment(autoescape=False).from_string(choose["rollback_to"])  # noqa: S701
    told = template.render(_targets=[current, "old"], _applied={"stat": {"exists": applied}})
    assert told == goes_to
    # Whatever is left to do: the first run may have ended with the backend drained.
    (block,) = change["tasks"]
    assert "when" not in block
    assert "when" not in block["block"][-1]
    assert block["block"][-1]["ansible.builtin.include_tasks"] == "tasks/undrain_backend.yml"
