"""modpath and semver against golang.org/x/mod's cases (tests/data/module_rules.yml)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modhaven import modpath, semver
from modhaven.globs import match_prefix_patterns

RULES: dict[str, list[Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "module_rules.yml").read_text(encoding="utf-8")
)


def _valid(call: Any, *arguments: str) -> bool:
    try:
        call(*arguments)
    except modpath.InvalidPathError:
        return False
    return True


def _or_none(call: Any, argument: str) -> str | None:
    try:
        return str(call(argument))
    except modpath.InvalidPathError:
        return None


@pytest.mark.parametrize(("path", "version", "ok"), RULES["check"])
def test_check(path: str, version: str, ok: bool) -> None:  # noqa: FBT001
    assert _valid(modpath.check, path, version) is ok


@pytest.mark.parametrize(("path", "ok"), RULES["check_path"])
def test_check_path(path: str, ok: bool) -> None:  # noqa: FBT001
    assert _valid(modpath.check_path, path) is ok


@pytest.mark.parametrize(("path", "prefix", "major"), RULES["split_path_version"])
def test_split_path_version(path: str, prefix: str | None, major: str | None) -> None:
    wanted = None if prefix is None else (prefix, major)
    assert modpath.split_path_version(path) == wanted


@pytest.mark.parametrize(("path", "escaped"), RULES["escape_path"])
def test_escape_path(path: str, escaped: str | None) -> None:
    assert _or_none(modpath.escape_path, path) == escaped


@pytest.mark.parametrize(("escaped", "path"), RULES["unescape_path"])
def test_unescape_path(escaped: str, path: str | None) -> None:
    assert _or_none(modpath.unescape_path, escaped) == path


@pytest.mark.parametrize(("version", "escaped"), RULES["escape_version"])
def test_escape_version(version: str, escaped: str | None) -> None:
    assert _or_none(modpath.escape_version, version) == escaped
    if escaped is not None:
        assert modpath.unescape_version(escaped) == version


@pytest.mark.parametrize(("version", "major", "ok"), RULES["match_path_major"])
def test_match_path_major(version: str, major: str, ok: bool) -> None:  # noqa: FBT001
    assert modpath.match_path_major(version, major) is ok


@pytest.mark.parametrize(("globs", "target", "ok"), RULES["match_prefix_patterns"])
def test_match_prefix_patterns(globs: str, target: str, ok: bool) -> None:  # noqa: FBT001
    assert match_prefix_patterns(globs, target) is ok


@pytest.mark.parametrize(("version", "canonical"), RULES["canonical"])
def test_canonical(version: str, canonical: str | None) -> None:
    assert semver.is_valid(version) is (canonical is not None)
    assert semver.canonical(version) == (canonical or "")


@pytest.mark.parametrize(("version", "time"), RULES["pseudo"])
def test_pseudo(version: str, time: str | None) -> None:
    assert semver.is_pseudo(version) is (time is not None)
    if time is not None:
        assert semver.pseudo_time(version) == time


def test_sort() -> None:
    wanted = RULES["sorted"]
    assert sorted(set(wanted), key=semver.sort_key) == wanted


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        ([], None),
        (["v1.0.0", "v1.2.0", "v1.10.0", "v2.0.0-rc.1"], "v1.10.0"),
        (["v1.0.0-alpha", "v1.0.0-beta"], "v1.0.0-beta"),
        (["v0.0.0-20200101000000-aaaaaaaaaaaa", "v0.0.0-20210101000000-bbbbbbbbbbbb"],
         "v0.0.0-20210101000000-bbbbbbbbbbbb"),
        (["v0.0.0-20210101000000-bbbbbbbbbbbb", "v0.1.0-pre"], "v0.1.0-pre"),
        (["v1.0.0", "v2.0.0+incompatible"], "v2.0.0+incompatible"),
    ],
)  # fmt: skip
def test_latest_is_chosen_as_the_go_command_does(versions: list[str], wanted: str | None) -> None:
    assert semver.latest(versions) == wanted
