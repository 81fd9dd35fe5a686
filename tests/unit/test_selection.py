"""What a purge covers, key by key."""

from __future__ import annotations

import pytest

from modhaven.checks import ConfigError
from modhaven.selection import NEGATIVE, Selection

VERSION = Selection.of_module("github.com/Azure/lib@v1.2.0")
MODULE = Selection.of_module("github.com/Azure/lib")
PREFIX = Selection.of_prefix("github.com/Azure")
NESTED = Selection.of_prefix("github.com/Azure/lib")
# A key, and which of the four cover it.
CASES = [
    ("github.com/!azure/lib/@v/v1.2.0.info", (True, True, True, True)),
    ("github.com/!azure/lib/@v/v1.2.0.mod", (True, True, True, True)),
    ("github.com/!azure/lib/@v/v1.2.0.zip", (True, True, True, True)),
    ("github.com/!azure/lib/@v/v1.2.0.ziphash", (True, True, True, True)),
    ("cached-only/github.com/!azure/lib/@v/v1.2.0.zip", (True, True, True, True)),
    ("github.com/!azure/lib/@v/list", (True, True, True, True)),
    ("github.com/!azure/lib/@latest", (True, True, True, True)),
    ("github.com/!azure/lib/@v/main.info", (True, True, True, True)),
    ("github.com/!azure/lib/@v/v1.2.info", (True, True, True, True)),
    ("github.com/!azure/lib/@v/v1.2.0-rc.1.info", (False, True, True, True)),
    ("github.com/!azure/lib/@v/v1.2.1.zip", (False, True, True, True)),
    ("github.com/!azure/lib/v2/@v/v2.0.0.zip", (False, False, True, True)),
    ("github.com/!azure/lib/sub/@latest", (False, False, True, True)),
    ("github.com/!azure/library/@v/v1.2.0.zip", (False, False, True, False)),
    ("github.com/!azure/@v/list", (False, False, True, False)),
    ("github.com/!azuresky/lib/@v/v1.2.0.zip", (False, False, False, False)),
    ("github.com/azure/lib/@v/v1.2.0.zip", (False, False, False, False)),
    ("sumdb/sum.golang.org/lookup/github.com/!azure/lib@v1.2.0", (False, False, False, False)),
]


@pytest.mark.parametrize(("key", "covered"), CASES)
def test_what_is_covered(key: str, covered: tuple[bool, ...]) -> None:
    assert tuple(one.covers(key) for one in (VERSION, MODULE, PREFIX, NESTED)) == covered
    assert not NEGATIVE.covers(key)


@pytest.mark.parametrize("selection", [VERSION, MODULE, PREFIX, NEGATIVE])
def test_it_can_be_written_down(selection: Selection) -> None:
    assert Selection.from_mapping(selection.as_mapping()) == selection


@pytest.mark.parametrize(
    "text",
    ["", "lib", "github.com/!azure/lib", "github.com/a/lib@", "github.com/a/lib@main",
     "github.com/a/lib@1.2.0", "github.com/a/lib@v1.2", "github.com/a/lib@v2.0.0",
     "github.com/a/lib@latest", "github.com/a/lib@v1.0.0@v1.0.0", "https://github.com/a/lib",
     "github.com/a/../b", "github.com/a/lib\n"],
)  # fmt: skip
def test_what_is_no_module_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be purged: .*; name a module"):
        Selection.of_module(text)


@pytest.mark.parametrize("text", ["", "/", "github.com//a", "/github.com", "corp", "a.b/*"])
def test_what_is_no_prefix_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be purged: .*; name whole elements"):
        Selection.of_prefix(text)


def test_ends_of_a_prefix() -> None:
    for text in ("github.com/corp/", "github.com/corp/..."):
        assert Selection.of_prefix(text) == Selection.of_prefix("github.com/corp")
    assert Selection.of_prefix("github.com").covers("github.com/a/@latest")
    # No module is called so, but some may begin so.
    assert Selection.of_prefix("a.b/v1").covers("a.b/v1/c/@latest")


@pytest.mark.parametrize(
    "version",
    ["v1.0.0-RC1", "v0.0.0-20170915032832-14c0d48ead0c", "v2.0.0+incompatible"],
)
def test_versions_that_have_more_than_numbers(version: str) -> None:
    selection = Selection.of_module(f"a.b/c@{version}")
    assert str(selection) == f"a.b/c@{version}"
    assert all(selection.covers(key) for key in (*selection.files, *selection.namesakes))


def test_a_query_that_looks_like_a_version_may_name_an_incompatible_one() -> None:
    assert Selection.of_module("a.b/c@v2.0.0+incompatible").namesakes == ("a.b/c/@v/v2.0.0.info",)
    assert Selection.of_module("a.b/c@v1.0.0").namesakes == ()
