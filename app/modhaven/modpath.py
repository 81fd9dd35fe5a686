"""Module paths and versions: which are valid, and how they are written in a request.

Pure port of the rules of golang.org/x/mod/module (CheckPath, CheckPathMajor, EscapePath,
EscapeVersion). An upper-case letter is written ``!`` and its lower-case
letter, so that stores on file systems that fold case keep modules apart.
"""

from __future__ import annotations

import re

from modhaven import semver

# Reserved file names on Windows, refused there whatever their extension (module.badWindowsNames).
_WINDOWS = frozenset(
    ["con", "prn", "aux", "nul"] + [f"{n}{i}" for n in ("com", "lpt") for i in range(1, 10)]
)
_MODULE_ELEMENT = re.compile(r"[A-Za-z0-9._~-]+")
_FIRST_ELEMENT = re.compile(r"[a-z0-9.-]+")
# Letters beyond ASCII are allowed in file names by x/mod; a version with one cannot be escaped.
_FILE_ELEMENT = re.compile(r"[A-Za-z0-9!#$%&()+,.=@\[\]^_{}~ -]+")
_ESCAPED = re.compile(r"(?:[^A-Z!]|![a-z])*")
_MAJOR = re.compile(r"(?P<prefix>.+)(?P<major>/v[0-9.]+)")
_GOPKG_MAJOR = re.compile(r"(?P<prefix>gopkg\.in/.*)(?P<major>\.v(?:0|[1-9][0-9]*)(?:-unstable)?)")


class InvalidPathError(ValueError):
    """A module path or version breaks the rules; the text is a sentence that says which."""


def check_path(path: str) -> None:
    """Raise InvalidPathError unless ``path`` is a valid module path (module.CheckPath)."""
    if not path.isascii():
        raise InvalidPathError(f"malformed module path {path!r}: only ASCII is allowed")
    for element in path.split("/"):
        _check_element(path, element)
    first = path.partition("/")[0]
    if "." not in first:
        raise InvalidPathError(f"malformed module path {path!r}: missing dot in first path element")
    if first.startswith("-") or not _FIRST_ELEMENT.fullmatch(first):
        raise InvalidPathError(
            f"malformed module path {path!r}: the first path element must be a lower-case host name"
        )
    if split_path_version(path) is None:
        raise InvalidPathError(f"malformed module path {path!r}: invalid version suffix")


def check_version(version: str) -> None:
    """Raise InvalidPathError unless ``version`` may be asked for (module.EscapeVersion).

    Versions need not be semantic, a branch or a commit will do, but they must be valid file names.
    """
    if (
        not _FILE_ELEMENT.fullmatch(version)
        or "!" in version
        or version.endswith(".")
        or _is_windows_name(version)
    ):
        raise InvalidPathError(f"disallowed version string {version!r}")


def check(path: str, version: str) -> None:
    """Raise InvalidPathError unless ``version`` is semantic and fits ``path`` (module.Check)."""
    check_path(path)
    if not semver.is_valid(version):
        raise InvalidPathError(f"{path}@{version}: not a semantic version")
    split = split_path_version(path)
    if split is not None and not match_path_major(version, split[1]):
        raise InvalidPathError(f"{path}@{version}: the major version does not match the path")


def split_path_version(path: str) -> tuple[str, str] | None:
    """Return ``(prefix, "/vN")`` or ``(path, "")``; None if malformed (module.SplitPathVersion)."""
    if path.startswith("gopkg.in/"):
        match = _GOPKG_MAJOR.fullmatch(path)
        return (match["prefix"], match["major"]) if match else None
    match = _MAJOR.fullmatch(path)
    if match is None:
        return path, ""
    major = match["major"]
    if "." in major or major[2] == "0" or major == "/v1":
        return None
    return match["prefix"], major


def match_path_major(version: str, path_major: str) -> bool:
    """Tell whether a semantic version belongs to a path's major (module.MatchPathMajor)."""
    if path_major.startswith(".v"):
        path_major = path_major.removesuffix("-unstable")
    if path_major == ".v1" and version.startswith("v0.0.0-"):
        # Early tools wrote v0 pseudo-versions for gopkg.in's .v1; go.mod files still name them.
        return True
    parts = semver.parse(version)
    if parts is None:
        return False
    if not path_major:
        return parts.major in ("0", "1") or parts.build == "+incompatible"
    return f"v{parts.major}" == path_major[1:]


def escape_path(path: str) -> str:
    """Return ``path`` as requests write it, A as !a; InvalidPathError (module.EscapePath)."""
    check_path(path)
    return _escape(path)


def unescape_path(escaped: str) -> str:
    """Return the module path of its escaped form; InvalidPathError (module.UnescapePath)."""
    path = _unescape(escaped)
    check_path(path)
    return path


def escape_version(version: str) -> str:
    """Return ``version`` as requests write it; InvalidPathError (module.EscapeVersion)."""
    check_version(version)
    return _escape(version)


def unescape_version(escaped: str) -> str:
    """Return the version of its escaped form; InvalidPathError (module.UnescapeVersion)."""
    version = _unescape(escaped)
    check_version(version)
    return version


def _check_element(path: str, element: str) -> None:
    problem = ""
    if not element:
        problem = "empty path element"
    elif not _MODULE_ELEMENT.fullmatch(element):
        problem = f"invalid character in {element!r}"
    elif element.startswith("."):
        problem = "leading dot in path element"
    elif element.endswith("."):
        problem = "trailing dot in path element"
    elif _is_windows_name(element):
        problem = f"{element!r} is a reserved file name on Windows"
    elif re.search(r"~[0-9]+$", element.partition(".")[0]):
        problem = "trailing tilde and digits in path element"
    elif path.startswith("-"):
        problem = "leading dash"
    if problem:
        raise InvalidPathError(f"malformed module path {path!r}: {problem}")


def _is_windows_name(element: str) -> bool:
    return element.partition(".")[0].lower() in _WINDOWS


def _escape(text: str) -> str:
    return re.sub(r"[A-Z]", lambda match: "!" + match[0].lower(), text)


def _unescape(escaped: str) -> str:
    if not escaped.isascii() or not _ESCAPED.fullmatch(escaped):
        raise InvalidPathError(f"invalid escaping in {escaped!r}")
    return re.sub(r"!([a-z])", lambda match: match[1].upper(), escaped)
