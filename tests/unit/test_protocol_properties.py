"""Properties of request paths that hold for any text, and for every valid request."""

from __future__ import annotations

import dataclasses
import os.path
import re
from pathlib import PurePosixPath
from urllib.parse import unquote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from modhaven import modpath, protocol
from modhaven.modpath import InvalidPathError
from modhaven.protocol import Class, Kind, MalformedError, NoSuchResourceError, Request

ROOT = "/var/lib/store"
# Whatever a client may write where a path is expected: pieces of the protocol beside their enemies.
PIECES = st.sampled_from(
    ["rsc.io", "quote", "@v", "@latest", "list", "v1.0.0", ".zip", ".info", ".mod", "v1.0.0.mod",
     "..", ".", "...", "", "\\", "\0", "\n", "\x7f", "é", "\u202e", "%", "%2e%2e", "%2f", "A", "!a",
     "!", "!A",
     "sumdb", "a.b/db", "supported", "latest", "lookup", "x.y@v1.0.0", "tile/8/0", "x001", "000",
     ".p/1", "cached-only", "healthz", "readyz", "-", "metrics", "~1", "con", "nul.x", "v2",
     "gopkg.in", "yaml.v2", "+incompatible",
     "x" * 201]
)  # fmt: skip
ANY_TEXT = st.one_of(
    st.text(),
    st.text("aZ0.-_~!@/v1+%#\\\0 é"),
    st.lists(PIECES, max_size=9).map("/".join),
    st.lists(PIECES, max_size=9).map("".join),
)

_WORD = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._~-]{0,8}[A-Za-z0-9_-]", fullmatch=True)
_HOST = st.from_regex(r"[a-z0-9]{1,5}\.[a-z]{2,3}", fullmatch=True)
_FILE = st.from_regex(r"[A-Za-z0-9#$&()+,=@\[\]^_{}~ -]{1,12}", fullmatch=True)
_SEMVER = st.from_regex(r"v[01]\.[0-9]\.[1-9](-[A-Za-z]{1,4}(\.[1-9]){0,2})?", fullmatch=True)


def is_valid(call: object, *arguments: str) -> bool:
    try:
        call(*arguments)  # type: ignore[operator] # one of modpath's checks
    except InvalidPathError:
        return False
    return True


MODULES = st.builds(
    lambda host, words: "/".join([host, *words]), _HOST, st.lists(_WORD, max_size=5)
).filter(lambda path: is_valid(modpath.check_path, path))
VERSIONS = st.one_of(_SEMVER, _FILE).filter(lambda text: is_valid(modpath.check_version, text))
DATABASES = st.builds(
    lambda host, words: "/".join([host, *words]),
    _HOST,
    st.lists(_WORD.filter(lambda word: word not in ("lookup", "tile")), max_size=2),
).filter(lambda name: not re.search(r"/(?:supported|latest)(?:/|$)", name))


@st.composite
def valid_paths(draw: st.DrawFn) -> str:
    """Paths that a go command may ask for, decoded, with their leading slash."""
    module = modpath.escape_path(draw(MODULES))
    release = modpath.escape_version(draw(_SEMVER))
    path = draw(
        st.sampled_from([
            f"{module}/@v/list",
            f"{module}/@latest",
            f"{module}/@v/{modpath.escape_version(draw(VERSIONS))}.info",
            f"{draw(_HOST)}/@v/{release}.{draw(st.sampled_from(['info', 'mod', 'zip']))}",
            f"sumdb/{draw(DATABASES)}/latest",
            f"sumdb/{draw(DATABASES)}/supported",
            f"sumdb/{draw(DATABASES)}/lookup/{module}@{release}",
            f"sumdb/{draw(DATABASES)}/tile/8/{draw(st.integers(0, 63))}/x001/234",
            f"sumdb/{draw(DATABASES)}/tile/8/data/067.p/{draw(st.integers(1, 255))}",
        ])
    )  # fmt: skip
    words = {f"/@v/{word}.info" for word in ("latest", "upgrade", "patch")}
    assume(not any(path.endswith(word) for word in words))
    return f"/{draw(st.sampled_from(['', 'cached-only/']))}{path}"


def parse(path: str) -> Request | None:
    """Parse it; None when it is refused. Any other error is a defect."""
    try:
        return protocol.parse(path)
    except (MalformedError, NoSuchResourceError):
        return None


def assert_harmless(request: Request) -> None:
    path = request.path
    joined = os.path.normpath(os.path.join(ROOT, path))  # noqa: PTH118 - what open() would do
    assert joined == f"{ROOT}/{path}"
    assert PurePosixPath(ROOT, path).is_relative_to(ROOT)
    elements = path.split("/")
    assert not {"", ".", ".."} & set(elements)
    assert len(elements) <= protocol.MAX_ELEMENTS
    assert max(map(len, elements)) <= protocol.MAX_ELEMENT
    assert not re.search(r"[\x00-\x1f\x7f\\%]", path)
    assert path.isascii()
    # A database's name is the operator's word, and is compared as it is written.
    assert not re.search(r"[A-Z]", path.removeprefix(f"sumdb/{request.sumdb}/"))


@given(ANY_TEXT, st.sampled_from(["", "/", "//", "/cached-only/", "/sumdb/a.b/"]))
@example("a.b/" + "x/" * 900 + "@v/list", "/")
def test_any_text_is_refused_or_harmless(text: str, prefix: str) -> None:
    request = parse(prefix + text)
    if request is not None:
        assert_harmless(request)


@given(ANY_TEXT)
def test_any_raw_target_is_refused_or_has_only_harmless_escapes(text: str) -> None:
    try:
        protocol.check_raw(text)
    except MalformedError:
        return
    path = text.partition("?")[0]
    for escape in re.findall(r"%(.{0,2})", path, re.DOTALL):
        assert re.fullmatch(r"[0-9a-fA-F]{2}", escape)
        assert chr(int(escape, 16)) not in "./\\%\x7f"
        assert int(escape, 16) >= 0x20


@given(valid_paths())
def test_what_a_go_command_asks_is_understood(path: str) -> None:
    request = parse(path)
    assert request is not None
    assert_harmless(request)
    assert request.cached_only is path.startswith("/cached-only/")
    assert request.path == path[1:].removeprefix("cached-only/")


@given(valid_paths())
def test_the_path_of_a_request_asks_for_the_same_again(path: str) -> None:
    request = parse(path)
    assert request is not None
    again = dataclasses.replace(request, cached_only=False)
    assert parse(f"/{request.path}") == again
    if request.module:
        assert modpath.unescape_path(request.escaped_module) == request.module
        assert f"{request.escaped_module}" in request.path


@given(valid_paths(), st.data())
def test_every_spelling_of_a_path_is_one_request(path: str, data: st.DataObject) -> None:
    """``!a`` and ``%21a``, ``@`` and ``%40``: any character but a dot or slash may be encoded."""
    assert parse(unquote(path.replace("!", "%21"))) == parse(path)
    some = data.draw(st.sets(st.integers(0, len(path) - 1)))
    form = data.draw(st.sampled_from(["%{:02x}", "%{:02X}"]))
    spelling = "".join(
        form.format(ord(char)) if at in some and char not in "./" else char
        for at, char in enumerate(path)
    )
    protocol.check_raw(spelling)
    assert parse(unquote(spelling)) == parse(path)


@given(valid_paths(), st.data())
def test_an_encoded_dot_or_slash_is_refused(path: str, data: st.DataObject) -> None:
    at = data.draw(st.sampled_from([i for i, char in enumerate(path) if char in "./"]))
    with pytest.raises(MalformedError):
        protocol.check_raw(f"{path[:at]}%{ord(path[at]):02x}{path[at + 1 :]}")


@given(MODULES, VERSIONS)
def test_escaping_goes_there_and_back(module: str, version: str) -> None:
    escaped = modpath.escape_path(module)
    assert (escaped, modpath.unescape_path(escaped)) == (escaped.lower(), module)
    escaped = modpath.escape_version(version)
    assert (escaped, modpath.unescape_version(escaped)) == (escaped.lower(), version)


@given(ANY_TEXT)
def test_unescaping_takes_one_spelling_only(text: str) -> None:
    for unescape, escape in (
        (modpath.unescape_path, modpath.escape_path),
        (modpath.unescape_version, modpath.escape_version),
    ):
        try:
            plain = unescape(text)
        except InvalidPathError:
            continue
        assert escape(plain) == text


@given(ANY_TEXT)
def test_the_class_is_that_of_the_request(text: str) -> None:
    path = f"/{text}"
    request = parse(path)
    operator = path == "/metrics" or path.startswith("/-/")
    wanted = Class.OPERATOR if operator else (request.cls if request else None)
    assert protocol.classify(path) == wanted
    if request is not None and request.kind in (Kind.MOD, Kind.ZIP):
        assert request.cls is Class.IMMUTABLE
