"""What holds for every file of the repository."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest
from tests.unit.ansible_plugin import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# In pieces, so that this file does not name them either.
REGISTRY_HOSTS = [
    ".".join(labels)
    for labels in (
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("pythonhosted", "org"),
        ("deb", "debian", "org"),
        ("ftp", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "debian", "org"),
        ("httpredir", "debian", "org"),
        ("snapshot", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("registry", "npmjs", "org"),
        ("npmjs", "com"),
        ("rubygems", "org"),
    )
]
# ftp.<country>.<project>.org, which every country's mirror answers to.
COUNTRY_MIRROR = re.compile(r"ftp\d?\.[a-z]{2}\.(?:debian)\.org")
INTERPRETER = re.compile(rb"#!(/bin/sh|/usr/bin/env bash|/bin/bash|/usr/bin/env python3)( .*)?")


@cache
def tracked() -> dict[str, tuple[Path, str]]:
    """Every file of the commit being made: {path in the repository: (path, mode as git has it)}."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--stage", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = {}
    for line in filter(None, listing.split("\0")):
        attributes, name = line.split("\t")
        if (ROOT / name).is_file():
            found[name] = (ROOT / name, attributes.split()[0])
    return found


SHELL_SCRIPTS = [
    name
    for name, (path, _) in tracked().items()
    if name.endswith(".sh") or name == ".ci/run" or path.read_bytes().startswith(b"#!/bin/")
    if not name.endswith(".j2")
]
REQUIREMENTS = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))


def test_git_lists_the_repository() -> None:
    assert {"site.yml", "pyproject.toml", "app/modhaven/protocol.py"} <= set(tracked())


def test_no_file_names_a_package_registry() -> None:
    found = []
    for name, (path, _) in tracked().items():
        text = path.read_bytes().decode(errors="replace").lower()
        found += [(name, host) for host in REGISTRY_HOSTS if host in text]
        found += [(name, match) for match in COUNTRY_MIRROR.findall(text)]
    assert found == []


# --- requirements


def requirements(name: str) -> list[str]:
    """The logical lines of requirements/`name`: continued lines joined, comments taken out."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    lines = requirements(name)
    assert lines
    pinned = re.compile(
        r"[a-z0-9][a-z0-9.-]*==[0-9][\w.+!-]*(\s*;[^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+"
    )
    assert [line for line in lines if not pinned.fullmatch(line)] == []


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_no_requirement_says_where_it_comes_from(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text
    assert "@" not in text
    assert not re.search(r"^\s*-[^-]|--(?!hash=)\w", re.sub(r"#.*", "", text), re.MULTILINE)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_each_pinned_file_has_the_file_it_was_made_from(name: str) -> None:
    wanted = [
        re.split(r"[\[<>=~! ;]", line)[0].lower().replace("_", "-")
        for line in requirements(name.replace(".txt", ".in"))
        if not line.startswith("-")
    ]
    pinned = {line.split("==")[0] for line in requirements(name)}
    assert set(wanted) <= pinned


# --- scripts and sources


@pytest.mark.parametrize("name", SHELL_SCRIPTS)
def test_a_shell_script_has_an_interpreter_and_may_be_run(name: str) -> None:
    path, mode = tracked()[name]
    assert INTERPRETER.fullmatch(path.read_bytes().partition(b"\n")[0])
    assert mode == "100755"


def test_what_may_be_run_says_what_runs_it() -> None:
    executable = [path for path, mode in tracked().values() if mode == "100755"]
    assert [path for path in executable if not path.read_bytes().startswith(b"#!")] == []


@pytest.mark.parametrize(
    "name", [name for name in tracked() if name.startswith("app/") and name.endswith(".py")]
)
def test_no_module_of_the_app_is_long(name: str) -> None:
    assert len(tracked()[name][0].read_text().splitlines()) <= 400


def test_text_ends_with_one_newline_and_no_line_with_a_blank() -> None:
    found = []
    for name, (path, _) in tracked().items():
        if path.suffix not in (".py", ".sh", ".yml", ".j2", ".md", ".toml", ".cfg", ".in", ".txt"):
            continue
        text = path.read_text()
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            found.append(f"{name}: its end")
        found += [
            f"{name}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if line != line.rstrip()
        ]
    assert found == []
