"""Semantic versions as the go command reads them.

The rules are golang.org/x/mod/semver's: a leading ``v`` is required, ``v1`` and ``v1.2`` are valid
shorthands of ``v1.0.0`` and ``v1.2.0``, and ordering is that of Semantic Versioning 2.0.0.
Pseudo-versions are golang.org/x/mod/module's.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"v(?P<major>{_NUMBER})"
    rf"(?:\.(?P<minor>{_NUMBER})"
    rf"(?:\.(?P<patch>{_NUMBER})"
    rf"(?P<prerelease>-{_IDENTIFIER}(?:\.{_IDENTIFIER})*)?"
    r"(?P<build>\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)?)?",
    re.ASCII,
)
_PSEUDO = re.compile(
    r"v[0-9]+\.(?:0\.0-|\d+\.\d+-(?:[^+]*\.)?0\.)\d{14}-[A-Za-z0-9]+"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)


class Parsed(NamedTuple):
    """A version's parts: decimal numbers, ``prerelease`` with its dash, ``build`` with its plus."""

    major: str
    minor: str
    patch: str
    prerelease: str
    build: str


def parse(version: str) -> Parsed | None:
    """Return the parts of ``version``, or None when it is not a semantic version."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return None
    return Parsed(
        match["major"],
        match["minor"] or "0",
        match["patch"] or "0",
        match["prerelease"] or "",
        match["build"] or "",
    )


def is_valid(version: str) -> bool:
    """Tell whether ``version`` is a semantic version (semver.IsValid)."""
    return parse(version) is not None


def canonical(version: str) -> str:
    """Return ``vX.Y.Z[-pre][+incompatible]``, "" of an invalid one (module.CanonicalVersion)."""
    parts = parse(version)
    if parts is None:
        return ""
    kept = "+incompatible" if parts.build == "+incompatible" else ""
    return f"v{parts.major}.{parts.minor}.{parts.patch}{parts.prerelease}{kept}"


def is_canonical(version: str) -> bool:
    """Tell whether ``version`` is its own canonical form: only then its files never change."""
    return bool(version) and canonical(version) == version


def is_pseudo(version: str) -> bool:
    """Tell whether ``version`` names a commit by time and hash (module.IsPseudoVersion)."""
    return _PSEUDO.fullmatch(version) is not None and is_valid(version)


def pseudo_time(version: str) -> str:
    """Return a pseudo-version's time, ``YYYYMMDDHHMMSS`` in UTC (module.PseudoVersionTime).

    Raises ValueError when ``version`` is not a pseudo-version.
    """
    if not is_pseudo(version):
        raise ValueError(f"{version} is not a pseudo-version")
    stamp = version.partition("+")[0].rsplit("-", 1)[0]
    return stamp[-14:]


def compare(left: str, right: str) -> int:
    """Return -1, 0 or 1 (semver.Compare): invalid versions are equal, and less than valid ones."""
    one, two = parse(left), parse(right)
    if one is None or two is None:
        return (one is not None) - (two is not None)
    a, b = _precedence(one), _precedence(two)
    return (a > b) - (a < b)


def sort_key(version: str) -> tuple[object, ...]:
    """Key that sorts versions upwards by precedence, equal ones by their text (semver.Sort)."""
    parts = parse(version)
    return (parts is not None, _precedence(parts) if parts is not None else (), version)


def latest(versions: list[str]) -> str | None:
    """Return what the go command would choose as @latest, or None of an empty list.

    The highest release; without one the highest pre-release; without one the youngest
    pseudo-version (modfetch's proxyRepo.latestFromList).
    """
    valid = [version for version in versions if is_canonical(version)]
    tagged = [version for version in valid if not is_pseudo(version)]
    # A pre-release's text begins with "-"; "" is a release.
    releases = [v for v in tagged if (parts := parse(v)) is not None and not parts.prerelease]
    for group in (releases, tagged):
        if group:
            return max(group, key=sort_key)
    return max(valid, key=lambda version: (pseudo_time(version), version), default=None)


def _precedence(parts: Parsed) -> tuple[object, ...]:
    """Order by numbers, then pre-releases before the release they lead to."""
    numbers = (int(parts.major), int(parts.minor), int(parts.patch))
    if not parts.prerelease:
        return (*numbers, 1, ())
    identifiers = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in parts.prerelease[1:].split(".")
    )
    return (*numbers, 0, identifiers)
