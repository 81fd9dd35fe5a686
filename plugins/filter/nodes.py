"""Jinja2 filters that judge what a playbook was told about the nodes it is to work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

Groups = Mapping[str, list[str]]


def _nodes(groups: Groups) -> list[str]:
    """The names of everything that serves, in the inventory's order."""
    names = [*groups.get("edges", []), *groups.get("backends", [])]
    return list(dict.fromkeys(names))


def node_problems(groups: Groups, node: str) -> list[str]:
    """Why `node` names nothing that serves, in a sentence; empty when it does.

    `groups` is Ansible's variable of that name.
    """
    known = _nodes(groups)
    if node in known:
        return []
    if node in groups.get("all", []):
        return [f"{node} is neither an edge nor a backend: name one of {', '.join(known)}."]
    return [f"Name a node of the inventory: -e node=NAME, one of {', '.join(known)}."]


def removal_problems(
    groups: Groups, hostvars: Mapping[str, Mapping[str, Any]], node: str
) -> list[str]:
    """Every reason why the deployment cannot do without `node`, one sentence each.

    `groups` and `hostvars` are Ansible's variables of those names.
    """
    problems = node_problems(groups, node)
    if problems:
        return problems
    backends = groups.get("backends", [])
    for group, members in (("edge", groups.get("edges", [])), ("backend", backends)):
        if members == [node]:
            problems.append(f"{node} is the only {group}: add another one first, with site.yml.")
    left = [name for name in backends if name != node]
    if (
        node in backends
        and left
        and all(boolean(hostvars[name].get("backend_backup", False), strict=False) for name in left)
    ):
        problems.append(
            f"Without {node} every backend is a backup ({', '.join(left)}):"
            " take 'backend_backup' from one of them first, and run site.yml."
        )
    return problems


class FilterModule:
    """Ansible finds the filters through this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"node_problems": node_problems, "removal_problems": removal_problems}
