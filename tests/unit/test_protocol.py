"""Request paths: the class table, the forms of one resource, and what is refused."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modhaven import protocol
from modhaven.protocol import Class, Kind, MalformedError, NoSuchResourceError

TABLE: dict[str, list[str]] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "request_classes.yml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(("cls", "path"), [(c, p) for c, paths in TABLE.items() for p in paths])
def test_class_table(cls: str, path: str) -> None:
    assert protocol.classify(path) == (None if cls == "refused" else Class(cls))


@pytest.mark.parametrize(
    ("path", "kind", "module", "version"),
    [
        ("/rsc.io/quote/@v/list", Kind.LIST, "rsc.io/quote", ""),
        ("/rsc.io/quote/@latest", Kind.LATEST, "rsc.io/quote", ""),
        ("/rsc.io/quote/@v/v1.5.2.info", Kind.INFO, "rsc.io/quote", "v1.5.2"),
        ("/rsc.io/quote/@v/v1.5.2.mod", Kind.MOD, "rsc.io/quote", "v1.5.2"),
        ("/rsc.io/quote/@v/v1.5.2.zip", Kind.ZIP, "rsc.io/quote", "v1.5.2"),
        ("/rsc.io/quote/@v/!feature.info", Kind.QUERY, "rsc.io/quote", "Feature"),
        # v2 without /v2: a source may answer with v2.0.0+incompatible, so it is a query.
        ("/rsc.io/quote/@v/v2.0.0.info", Kind.QUERY, "rsc.io/quote", "v2.0.0"),
        ("/github.com/!a/b/@v/v1.0.0-!r!c1.zip", Kind.ZIP, "github.com/A/b", "v1.0.0-RC1"),
        ("/sumdb/a.b/c/lookup/x.y/!z@v1.0.0", Kind.SUMDB_LOOKUP, "x.y/Z", "v1.0.0"),
    ],
)
def test_parse(path: str, kind: Kind, module: str, version: str) -> None:
    request = protocol.parse(path)
    assert (request.kind, request.module, request.version) == (kind, module, version)
    assert request.path == path[1:]


def test_cached_only_is_the_same_resource() -> None:
    request = protocol.parse("/cached-only/rsc.io/quote/@v/list")
    assert request.cached_only
    assert request.path == "rsc.io/quote/@v/list"


def test_both_spellings_are_one_resource() -> None:
    assert protocol.parse(unquote("/github.com/%21azure/x/@v/list")) == protocol.parse(
        "/github.com/!azure/x/@v/list"
    )


@pytest.mark.parametrize(
    "path",
    [
        "/a.b/../c/@v/list",
        "/a.b/./c/@v/list",
        "/../etc/passwd",
        "/a.b/\0/@v/list",
        "/a.b/x\n/@v/list",
        "/a.b\\c/@v/list",
        "/a.b/" + "x" * 201 + "/@v/list",
        "/a.b/" + "x/" * 1100 + "@v/list",
        "a.b/@v/list",
    ],
)
def test_hostile_paths_are_refused(path: str) -> None:
    with pytest.raises(MalformedError):
        protocol.parse(path)


@pytest.mark.parametrize(
    "raw",
    ["/a.b%2fc/@v/list", "/a.b%2Fc/@v/list", "/a.b/%2e%2e/@v/list", "/a.b/%00/@v/list",
     "/a.b%5cc/@v/list", "/a.b/%252e/@v/list", "/a.b/%0a/@v/list", "/a.b/%zz", "/a.b/%",
     "/" + "x" * 2048],
)  # fmt: skip
def test_hostile_encodings_are_refused(raw: str) -> None:
    with pytest.raises(MalformedError):
        protocol.check_raw(raw)


@pytest.mark.parametrize(
    "raw", ["/github.com/%21azure/x/@v/list", "/a.b/@v/v1.0.0%2Bx.info?go=%2f"]
)
def test_ordinary_encodings_are_not(raw: str) -> None:
    protocol.check_raw(raw)


ALPHABET = "aZ0.-_~!@/v1+%#\\\0 é"
PARTS = st.sampled_from(
    ["rsc.io", "quote", "@v", "@latest", "list", "v1.0.0", ".zip", ".info", "..", "sumdb",
     "tile/8/0", "000", ".p/1", "lookup", "cached-only", "!a", "!", "\0", "%2e", "v1.0.0.mod", "@"]
)  # fmt: skip


@given(st.one_of(st.text(), st.text(ALPHABET), st.lists(PARTS).map("/".join)))
def test_any_path_is_parsed_or_refused_and_never_leaves_the_store(text: str) -> None:
    try:
        request = protocol.parse("/" + text)
    except (MalformedError, NoSuchResourceError):
        return
    elements = request.path.split("/")
    assert "" not in elements
    assert not {".", ".."} & set(elements)
    assert "\0" not in request.path
    assert request.path in text or request.cls is Class.LOCAL
