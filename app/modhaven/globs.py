"""Patterns of module paths, as in GOPRIVATE, GONOSUMDB and GOVCS.

Sources: golang.org/x/mod/module (MatchPrefixPatterns), Go's path.Match.
"""

import functools
import re


def match_prefix_patterns(globs: str, target: str) -> bool:
    """Tell whether a path prefix of ``target`` matches one of the comma-separated ``globs``.

    A glob of n elements is compared with the first n elements of the target. Empty and malformed
    globs match nothing; a slash at the end of one is ignored.
    """
    elements = target.split("/")
    for glob in (part.removesuffix("/") for part in globs.split(",")):
        count = glob.count("/") + 1
        if glob and count <= len(elements) and match(glob, "/".join(elements[:count])):
            return True
    return False


def is_valid(pattern: str) -> bool:
    """Tell whether ``pattern`` is well-formed: path.Match would not return ErrBadPattern."""
    return _compile(pattern) is not None


def match(pattern: str, name: str) -> bool:
    """Tell whether ``name`` as a whole matches (path.Match); a malformed pattern matches nothing.

    ``*`` and ``?`` stand for any characters but slashes, ``[a-z]`` and ``[^a-z]`` for one
    character, a backslash takes the next character literally.
    """
    compiled = _compile(pattern)
    return compiled is not None and compiled.fullmatch(name) is not None


@functools.lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str] | None:
    parts: list[str] = []
    at = 0
    try:
        while at < len(pattern):
            char = pattern[at]
            at += 1
            if char == "*":
                parts.append("[^/]*")
            elif char == "?":
                parts.append("[^/]")
            elif char == "[":
                part, at = _character_class(pattern, at)
                parts.append(part)
            else:
                if char == "\\":
                    char, at = pattern[at], at + 1
                parts.append(re.escape(char))
    except IndexError:  # The pattern ends within a class or after a backslash.
        return None
    except ValueError:
        return None
    return re.compile("".join(parts), re.DOTALL)


def _character_class(pattern: str, at: int) -> tuple[str, int]:
    """Return the class whose first character is at ``at`` as a regular expression, and its end.

    Raises IndexError or ValueError where path.Match finds a bad pattern.
    """
    negated = pattern[at] == "^"
    at += negated
    ranges: list[str] = []
    count = 0
    while pattern[at] != "]" or not count:
        low, at = _class_character(pattern, at)
        high = low
        if pattern[at] == "-":
            high, at = _class_character(pattern, at + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        count += 1
    if not ranges:
        return ("." if negated else "(?!)"), at + 1
    return f"[{'^' if negated else ''}{''.join(ranges)}]", at + 1


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] in "-]":
        raise ValueError(f"malformed pattern {pattern!r}")
    if pattern[at] == "\\":
        at += 1
    return pattern[at], at + 1
