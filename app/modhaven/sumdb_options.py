"""Checksum databases as configured: GOSUMDB's syntax, or mappings with more to say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from modhaven import checks
from modhaven.chain_options import OPTIONS as UPSTREAM_OPTIONS
from modhaven.settings import SumDB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modhaven.checks import Check

OPTIONS: Mapping[str, Check] = {
    "key": checks.text(r"\S+", "name+hash+key"),
    "url": checks.text(r"\S+", "a URL"),
    **{
        name: UPSTREAM_OPTIONS[name] for name in ("modules", "proxy", "ca_file", "credentials_file")
    },
}


def databases(value: object) -> tuple[SumDB, ...]:
    """Return the databases of a string, a list or ``off``; ValueError says what is wrong."""
    if value in ("off", []):
        return ()
    entries = value if isinstance(value, list) else [value]
    found = []
    for number, entry in enumerate(entries, start=1):
        try:
            found.append(_database(entry))
        except ValueError as error:
            where = f"entry {number}: " if isinstance(value, list) else ""
            raise ValueError(f"{where}{error}") from None
    names = [database.name for database in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"names {twice} twice")
    return tuple(found)


def parse(text: str) -> SumDB:
    """Return a database of ``name+hash+key [url]``, the syntax of GOSUMDB; ValueError if wrong."""
    key, _, url = text.strip().partition(" ")
    if not re.fullmatch(r"[a-z0-9.-]+(/[A-Za-z0-9._~-]+)*\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*", key):
        raise ValueError("must be name+hash+key, optionally followed by a space and a URL, or off")
    name = key.partition("+")[0]
    url = url.strip() or f"https://{name}"
    if not re.fullmatch(r"https?://[^\s?#]+", url):
        raise ValueError(f"{url!r} is not an http:// or https:// URL")
    return SumDB(name=name, key=key, url=url.rstrip("/"))


def _database(entry: object) -> SumDB:
    if isinstance(entry, str):
        return parse(entry)
    if not isinstance(entry, dict) or "key" not in entry:
        raise ValueError("must be name+hash+key, a mapping with a key, a list of these, or off")
    options = checks.options("a checksum database", entry, OPTIONS)
    plain = parse(f"{options.pop('key')} {options.pop('url', '')}")
    return SumDB(name=plain.name, key=plain.key, url=plain.url, **options)
