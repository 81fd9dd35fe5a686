"""Which nodes a playbook may take out, and what it says of the others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.ansible_plugin import is_one_sentence, load

nodes = load("filter/nodes.py")

GROUPS = {
    "all": ["edge1", "edge2", "backend1", "backend2", "backend3", "client1"],
    "edges": ["edge1", "edge2"],
    "backends": ["backend1", "backend2", "backend3"],
    "clients": ["client1"],
}


def problems(node: str, groups: dict[str, list[str]] | None = None, *backups: str) -> list[str]:
    wanted = groups or GROUPS
    hostvars: dict[str, dict[str, Any]] = {name: {} for name in wanted["all"]}
    for name in backups:
        hostvars[name]["backend_backup"] = True
    found: list[str] = nodes.removal_problems(wanted, hostvars, node)
    assert all(is_one_sentence(text) for text in found)
    return found


@pytest.mark.parametrize("node", ["edge1", "edge2", "backend1", "backend3"])
def test_a_node_that_another_one_stands_in_for_may_go(node: str) -> None:
    assert problems(node, None, "backend3") == []


@pytest.mark.parametrize("node", ["", "backend9"])
def test_an_unknown_name_is_answered_with_the_known_ones(node: str) -> None:
    (problem,) = problems(node)
    assert problem.startswith("Name a node of the inventory: -e node=NAME, one of edge1, edge2, b")


def test_a_client_is_no_node() -> None:
    assert "client1 is neither an edge nor a backend" in problems("client1")[0]


def test_the_last_edge_and_the_last_backend_stay() -> None:
    alone = {"all": ["solo"], "edges": ["solo"], "backends": ["solo"]}
    assert problems("solo", alone) == [
        "solo is the only edge: add another one first, with site.yml.",
        "solo is the only backend: add another one first, with site.yml.",
    ]
    both = {"all": ["a", "b"], "edges": ["a", "b"], "backends": ["a"]}
    assert problems("a", both) == ["a is the only backend: add another one first, with site.yml."]
    assert problems("b", both) == []


def test_backups_alone_are_no_pool() -> None:
    found = problems("backend1", None, "backend2", "backend3")
    assert len(found) == 1
    assert "Without backend1 every backend is a backup (backend2, backend3)" in found[0]


def test_a_name_that_playbooks_ask_for_need_not_be_one_that_can_go() -> None:
    alone = {"all": ["solo"], "edges": ["solo"], "backends": ["solo"]}
    assert nodes.node_problems(alone, "solo") == []
    assert nodes.node_problems(alone, "other")
