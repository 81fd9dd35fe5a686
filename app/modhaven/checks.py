"""Checks of single configuration values.

A check returns the value, or raises ValueError: the rest of a sentence that begins with the key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modhaven import globs

if TYPE_CHECKING:
    from collections.abc import Mapping

Check = Callable[[object], object]


class ConfigError(Exception):
    """The configuration is wrong; the text is one sentence that names the key."""


def section(name: str, data: object, keys: Mapping[str, Check]) -> dict[str, object]:
    """Return the checked values of a mapping; ConfigError names the first key that is wrong."""
    if not isinstance(data, dict):
        raise ConfigError(f"{name or 'the configuration'} must be a mapping of keys to values")
    values: dict[str, object] = {}
    for key, value in data.items():
        full = f"{name}.{key}" if name else str(key)
        check = keys.get(key)
        if check is None:
            known = ", ".join(sorted(keys))
            raise ConfigError(f"{full} is not a configuration key; the keys here are {known}")
        try:
            values[key] = check(value)
        except ValueError as error:
            raise ConfigError(f"{full} {error}") from None
    return values


def options(what: str, data: Mapping[object, object], keys: Mapping[str, Check]) -> dict[str, Any]:
    """Return the checked values of one entry of a list; ValueError names the first wrong one.

    ``what`` is what the entry describes: ``an upstream``.
    """
    values: dict[str, Any] = {}
    for key, value in data.items():
        check = keys.get(str(key))
        if check is None:
            known = ", ".join(sorted(keys))
            raise ValueError(f"{key} is not an option of {what}; these are {known}")
        try:
            values[str(key)] = check(value)
        except ValueError as error:
            raise ValueError(f"{key} {error}") from None
    return values


def text(pattern: str, meaning: str) -> Check:
    """Accept what ``pattern`` matches as a whole."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"must be {meaning}, not {value!r}")
        return value

    return check


def whole(low: int, high: int) -> Check:
    """Accept whole numbers from ``low`` to ``high``."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {value!r}")
        return value

    return check


def seconds(low: float, high: float) -> Check:
    """Accept numbers of seconds from ``low`` to ``high``."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"must be a number of seconds, not {value!r}")
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g} seconds, not {value:g}")
        return float(value)

    return check


def flag(value: object) -> bool:
    """Accept true and false."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")
    return value


def path(value: object) -> Path:
    """Accept absolute paths."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError(f"must be an absolute path, not {value!r}")
    return Path(value)


def patterns(value: object) -> str:
    """Accept module path patterns in GOPRIVATE's syntax; a list is joined with commas.

    A malformed pattern would match nothing, and what it is to protect would be let out: it is
    refused.
    """
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ",".join(value)
    if not isinstance(value, str):
        raise ValueError(f"must be module path patterns, separated by commas, not {value!r}")
    for glob in filter(None, value.split(",")):
        if not globs.is_valid(glob) or re.search(r"\s|://", glob) or glob.startswith("/"):
            raise ValueError(f"has {glob!r}, which is no pattern of module paths such as corp.x/*")
    return value


def some_patterns(value: object) -> str:
    """Accept patterns, at least one."""
    found = patterns(value)
    if not found.strip(","):
        raise ValueError("must have at least one pattern of module paths; leave it out for all")
    return found
