"""What holds for playbooks whatever the hosts say."""

from __future__ import annotations

import hashlib

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


(LEAVE,) = (
    task["ansible.builtin.copy"]
    for task in yaml.safe_load((ROOT / "playbooks/tasks/leave_vip.yml").read_text())
    if "ansible.builtin.copy" in task
)


@pytest.mark.parametrize(
    ("left", "goes"),
    [
        # A run that was cut short: the next one would take it for somebody's wish for ever.
        (LEAVE["content"], True),
        (None, False),
        ("", False),
        ("maintenance\n", False),
    ],
)
def test_an_edge_is_kept_from_the_vip_as_long_as_somebody_wants_it(
    left: str | None, *, goes: bool
) -> None:
    assert LEAVE["force"] is False
    (comes,) = (
        task
        for task in yaml.safe_load((ROOT / "playbooks/tasks/free_vip.yml").read_text())
        if task.get("ansible.builtin.file", {}).get("path") == LEAVE["dest"]
    )
    environment = jinja2.Environment(autoescape=False)  # noqa: S701 - no HTML
    environment.filters["hash"] = lambda text, kind: hashlib.new(kind, text.encode()).hexdigest()
    seen = {"exists": False} if left is None else {
        "exists": True, "checksum": hashlib.sha1(left.encode()).hexdigest(),  # noqa: S324 - stat's
    }  # fmt: skip
    assert goes is environment.compile_expression(comes["when"])(kept_away={"stat": seen})


@pytest.mark.parametrize(
    ("current", "applied", "to_do"),
    [
        ("new", True, True),
        # Cut short before the app was started anew: the link alone is no rollback.
        ("old", True, True),
        ("old", False, False),
    ],
)
def test_a_rollback_that_was_cut_short_goes_on(current: str, *, applied: bool, to_do: bool) -> None:
    find, _, _, change, _ = yaml.safe_load((ROOT / "playbooks/rollback.yml").read_text())
    (choose,) = (task for task in find["tasks"] if "ansible.builtin.set_fact" in task)
    lines = [f"/opt/modhaven/current {current}", "/opt/modhaven/previous old"]
    seen = {"stdout_lines": lines + ["/etc/modhaven/applied "] * applied}
    environment = jinja2.Environment(autoescape=False)  # noqa: S701 - no HTML
    environment.filters["split"] = str.split

    def told(text: str, **known: object) -> object:
        return environment.compile_expression(text.strip("{} "))(dict=dict, **known)

    known = {"_seen": told(choose["vars"]["_seen"], _releases=seen)}
    known["_differ"] = told(choose["vars"]["_differ"], **known)
    facts = choose["ansible.builtin.set_fact"]
    assert told(facts["rollback_to"], **known) == "old"
    assert told(facts["rollback_backend"], **known) is to_do
    # Also where nothing is left to do: the first run may have ended with the backend drained.
    (turn,) = change["tasks"]
    assert turn["vars"] == {"turn": "roll_back_backend"}
    roll_back, let_in = yaml.safe_load((ROOT / "playbooks/tasks/roll_back_backend.yml").read_text())
    assert (roll_back["when"], let_in["when"]) == ("rollback_backend", "not rollback_backend")
    assert let_in["block"][0]["ansible.builtin.include_tasks"] == "undrain_backend.yml"
    # Where that fails, the next ones are left alone.
    assert let_in["rescue"][0]["ansible.builtin.include_tasks"] == "remember_failure.yml"
