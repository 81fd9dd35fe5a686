"""What a request path asks for: pure functions of the GOPROXY and checksum database protocols.

Sources: https://go.dev/ref/mod#goproxy-protocol, golang.org/x/mod/module for paths and versions,
golang.org/x/mod/sumdb for the checksum database. An nginx map on the edge sorts paths into the same
classes; tests/data/request_classes.yml is fed to both.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from modhaven import modpath, semver

MAX_PATH = 2048
# A file name has at most 255 bytes; the rest is for the suffixes the store adds.
MAX_ELEMENT = 200
# Each is a folder of the store. A thousand of them would exhaust the interpreter's recursion limit,
# with which pathlib makes folders and os.walk reads them; no module is a tenth as deep as this.
MAX_ELEMENTS = 100
# Two forms of one resource would be two keys in every cache, and hide what is asked: an encoded
# slash, backslash, dot, percent sign or control character is never needed.
_HOSTILE_ESCAPE = re.compile(r"%(?:2[eEfF5]|5[cC]|[01][0-9a-fA-F]|7[fF]|(?![0-9a-fA-F]{2}))")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_QUERY_WORDS = frozenset({"latest", "upgrade", "patch"})
_SUMDB = re.compile(
    r"(?P<name>[a-z0-9.-]+(?:/[A-Za-z0-9._~-]+)*?)"
    r"/(?P<rest>supported|latest|lookup/.+|tile/.+)"
)
_TILE = re.compile(
    r"tile/8/(?:data|[0-9]|[1-5][0-9]|6[0-3])/(?:x[0-9]{3}/)*[0-9]{3}(?P<partial>\.p/(?:[1-9][0-9]{0,2}))?"
)


class Kind(enum.StrEnum):
    """What is asked for."""

    LIST = "list"
    LATEST = "latest"
    INFO = "info"
    QUERY = "query"
    MOD = "mod"
    ZIP = "zip"
    SUMDB_SUPPORTED = "sumdb-supported"
    SUMDB_LATEST = "sumdb-latest"
    SUMDB_LOOKUP = "sumdb-lookup"
    SUMDB_TILE = "sumdb-tile"
    HEALTHZ = "healthz"
    READYZ = "readyz"
    METRICS = "metrics"
    STATUS = "status"


class Class(enum.StrEnum):
    """How long an answer may be kept (DESIGN: request classes)."""

    IMMUTABLE = "immutable"
    MUTABLE = "mutable"
    LOCAL = "local"
    OPERATOR = "operator"


# What is asked about the backend itself.
_OWN = {
    "/healthz": (Kind.HEALTHZ, Class.LOCAL),
    "/readyz": (Kind.READYZ, Class.LOCAL),
    "/metrics": (Kind.METRICS, Class.OPERATOR),
    "/-/status": (Kind.STATUS, Class.OPERATOR),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One resource. ``path`` is its only spelling: escaped with ``!``, no leading slash."""

    kind: Kind
    cls: Class
    path: str
    module: str = ""
    version: str = ""
    sumdb: str = ""
    cached_only: bool = False

    @property
    def escaped_module(self) -> str:
        """The module path as requests and the store write it."""
        return modpath.escape_path(self.module)


class MalformedError(ValueError):
    """No GOPROXY client sends this: it is refused before anything is looked up (HTTP 400)."""


class NoSuchResourceError(ValueError):
    """Well-formed, but nothing can be there; clients go on elsewhere (HTTP 404)."""


def check_raw(raw: str) -> None:
    """Raise MalformedError when a request target, still percent-encoded, hides what it asks for."""
    if len(raw) > MAX_PATH:
        raise MalformedError(f"the path is longer than {MAX_PATH} bytes")
    # urlsplit, which servers use, takes tabs and line ends out of what it is given: another path.
    if _CONTROL.search(raw):
        raise MalformedError("the path has a control character")
    if _HOSTILE_ESCAPE.search(raw.partition("?")[0]):
        raise MalformedError("the path has an encoded slash, dot, percent or control character")


def parse(path: str) -> Request:
    """Return what ``path``, percent-decoded and beginning with a slash, asks for.

    Raises MalformedError for hostile paths, NoSuchResourceError where no resource can be.
    """
    _check_form(path)
    if path in _OWN:
        kind, cls = _OWN[path]
        return Request(kind=kind, cls=cls, path=path[1:])
    bare = path[1:]
    cached_only = bare.startswith("cached-only/")
    if cached_only:
        bare = bare.removeprefix("cached-only/")
    try:
        if bare.startswith("sumdb/"):
            return _parse_sumdb(bare, cached_only=cached_only)
        return _parse_module(bare, cached_only=cached_only)
    except modpath.InvalidPathError as error:
        raise NoSuchResourceError(str(error)) from None


def classify(path: str) -> Class | None:
    """Return the class of a decoded path, None when it is refused: the table nginx agrees with."""
    if path.startswith("/-/"):
        return Class.OPERATOR
    try:
        return parse(path).cls
    except (MalformedError, NoSuchResourceError):
        return None


def _check_form(path: str) -> None:
    if len(path) > MAX_PATH:
        raise MalformedError(f"the path is longer than {MAX_PATH} bytes")
    if not path.startswith("/"):
        raise MalformedError("the path must begin with a slash")
    if _CONTROL.search(path) or "\\" in path:
        raise MalformedError("the path has a control character or a backslash")
    elements = path[1:].split("/")
    if any(element in (".", "..") for element in elements):
        raise MalformedError("the path has a . or .. element")
    if len(elements) > MAX_ELEMENTS:
        raise MalformedError(f"the path has more than {MAX_ELEMENTS} elements")
    if any(len(element) > MAX_ELEMENT for element in elements):
        raise MalformedError(f"a path element is longer than {MAX_ELEMENT} bytes")


def _parse_module(bare: str, *, cached_only: bool) -> Request:
    escaped, found, last = bare.rpartition("/@latest")
    if found and not last:
        module = modpath.unescape_path(escaped)
        return Request(
            kind=Kind.LATEST, cls=Class.MUTABLE, path=bare, module=module, cached_only=cached_only
        )
    escaped, found, file = bare.partition("/@v/")
    if not found or "/" in file:
        raise NoSuchResourceError("not a path of the GOPROXY protocol")
    module = modpath.unescape_path(escaped)
    if file == "list":
        return Request(
            kind=Kind.LIST, cls=Class.MUTABLE, path=bare, module=module, cached_only=cached_only
        )
    stem, _, extension = file.rpartition(".")
    if extension not in ("info", "mod", "zip") or not stem:
        raise NoSuchResourceError("not a path of the GOPROXY protocol")
    version = modpath.unescape_version(stem)
    kind = _file_kind(module, version, extension)
    return Request(
        kind=kind,
        cls=Class.MUTABLE if kind is Kind.QUERY else Class.IMMUTABLE,
        path=bare,
        module=module,
        version=version,
        cached_only=cached_only,
    )


def _file_kind(module: str, version: str, extension: str) -> Kind:
    if version in _QUERY_WORDS:
        raise NoSuchResourceError(f"{version!r} is a query of the go command, not a version")
    if semver.is_canonical(version):
        try:
            modpath.check(module, version)
        except modpath.InvalidPathError:
            # v2.0.0 of a path without /v2: a source may know it as v2.0.0+incompatible.
            canonical = False
        else:
            canonical = True
    else:
        canonical = False
    if canonical:
        return Kind(extension)
    if extension == "info":
        return Kind.QUERY
    raise NoSuchResourceError(
        f".{extension} exists for canonical versions only; {version!r} is not one of {module}"
    )


def _parse_sumdb(bare: str, *, cached_only: bool) -> Request:
    match = _SUMDB.fullmatch(bare.removeprefix("sumdb/"))
    if match is None:
        raise NoSuchResourceError("not a path of the checksum database protocol")
    name, rest = match["name"], match["rest"]
    word = rest.partition("/")[0]
    module = version = ""
    if word == "lookup":
        escaped, found, escaped_version = rest.removeprefix("lookup/").rpartition("@")
        module = modpath.unescape_path(escaped)
        version = modpath.unescape_version(escaped_version)
        if not found or not semver.is_canonical(version):
            raise NoSuchResourceError("the checksum database knows canonical versions only")
        cls = Class.IMMUTABLE
    elif word == "tile":
        tile = _TILE.fullmatch(rest)
        if tile is None:
            raise NoSuchResourceError("not a tile of the checksum database")
        cls = Class.MUTABLE if tile["partial"] else Class.IMMUTABLE
    else:
        cls = Class.LOCAL if word == "supported" else Class.MUTABLE
    return Request(
        kind=Kind(f"sumdb-{word}"),
        cls=cls,
        path=bare,
        module=module,
        version=version,
        sumdb=name,
        cached_only=cached_only,
    )
