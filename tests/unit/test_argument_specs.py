"""Each role's options: documented, with the defaults it really has, and read by something."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import yaml
from tests.unit.ansible_plugin import ROOT, is_one_sentence

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
TYPES = {"str", "int", "float", "bool", "list", "dict", "path", "raw"}


@cache
def defaults(role: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / "defaults/main.yml"
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


@cache
def specifications(role: str) -> dict[str, Any]:
    specs: dict[str, Any] = yaml.safe_load(
        (ROOT / "roles" / role / "meta/argument_specs.yml").read_text()
    )["argument_specs"]
    return specs


def options(role: str) -> dict[str, Any]:
    return specifications(role)["main"].get("options") or {}


@cache
def readers() -> str:
    """Everything that may read a variable, without comments (in which a mention is no use)."""
    paths = [
        path
        for folder in ("roles", "templates", "playbooks")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and path.parent.name not in ("defaults", "meta")
    ]
    text = "\n".join(path.read_text() for path in [*paths, ROOT / "site.yml"])
    text = re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL)
    return re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)


def is_templated(value: object) -> bool:
    return isinstance(value, str) and "{{" in value


def is_of(kind: str, value: object) -> bool:
    """Whether a default, as YAML reads it, is of a specification's type."""
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "path": (str,),
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "list": (list,),
        "dict": (dict,),
        "raw": (object,),
    }
    return isinstance(value, kinds[kind]) and (kind == "bool" or not isinstance(value, bool))


EVERY_OPTION = [(role, name) for role in ROLES for name in options(role)]
EVERY_DEFAULT = [(role, name) for role in ROLES for name in defaults(role)]


def test_there_are_roles() -> None:
    assert {"common", "pki", "backend", "edge", "vip", "client", "preflight"} <= set(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_the_options_are_the_defaults_key_for_key(role: str) -> None:
    assert list(options(role)) == list(defaults(role))


@pytest.mark.parametrize("role", ROLES)
def test_each_entry_point_is_a_file_with_a_short_description(role: str) -> None:
    for entry, content in specifications(role).items():
        assert (ROOT / "roles" / role / "tasks" / f"{entry}.yml").is_file()
        assert content["short_description"]
        assert not content["short_description"].endswith(".")


@pytest.mark.parametrize(("role", "name"), EVERY_OPTION)
def test_an_option_has_a_sentence_and_a_type(role: str, name: str) -> None:
    option = options(role)[name]
    description = option["description"].strip()
    assert description.endswith(".")
    assert description[0].isupper()
    assert all(is_one_sentence(part) for part in re.split(r"(?<=\.)\s+(?=[A-Z])", description))
    assert option["type"] in TYPES
    assert ("elements" in option) is (option["type"] == "list")


@pytest.mark.parametrize(("role", "name"), EVERY_OPTION)
def test_a_default_is_the_one_of_the_defaults_file(role: str, name: str) -> None:
    value, option = defaults(role)[name], options(role)[name]
    if is_templated(value):
        assert "default" not in option, "a template is no default that a reader could use"
        return
    assert "default" in option
    assert option["default"] == value
    assert type(option["default"]) is type(value)
    assert is_of(option["type"], value)
    assert value in option.get("choices", [value])


@pytest.mark.parametrize(("role", "name"), EVERY_DEFAULT)
def test_a_variable_carries_the_name_of_its_role(role: str, name: str) -> None:
    assert re.fullmatch(rf"{role}_[a-z0-9_]+", name)


@pytest.mark.parametrize(("role", "name"), EVERY_DEFAULT)
def test_every_variable_is_read_somewhere(role: str, name: str) -> None:
    assert re.search(rf"(?<![\w.-]){name}(?!\w)|\.{name}(?!\w)", readers()), (
        f"nothing in roles/, templates/ or playbooks/ reads {name} of role {role}"
    )


@pytest.mark.parametrize("role", ROLES)
def test_internal_variables_begin_with_an_underscore_and_the_role(role: str) -> None:
    path = ROOT / "roles" / role / "vars/main.yml"
    names = yaml.safe_load(path.read_text()) if path.exists() else {}
    assert [name for name in names or {} if not name.startswith(f"_{role}_")] == []


def test_no_variable_belongs_to_two_roles() -> None:
    names = [name for _, name in EVERY_DEFAULT]
    assert sorted(set(names)) == sorted(names)
