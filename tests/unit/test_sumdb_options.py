"""Checksum databases as they are configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from modhaven import sumdb_options
from modhaven.settings import SumDB

KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
CORP = "sum.corp.x+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


def test_the_forms() -> None:
    plain = SumDB(name="sum.golang.org", key=KEY, url="https://sum.golang.org")
    assert sumdb_options.databases("off") == sumdb_options.databases([]) == ()
    assert sumdb_options.databases(KEY) == sumdb_options.databases([KEY]) == (plain,)
    mapping = {"key": CORP, "url": "https://a.x/", "modules": ["git.corp.x"], "ca_file": "/ca"}
    assert sumdb_options.databases([KEY, mapping]) == (
        plain,
        SumDB(
            name="sum.corp.x",
            key=CORP,
            url="https://a.x",
            modules="git.corp.x",
            ca_file=Path("/ca"),
        ),
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("sum.golang.org", r"^must be name\+hash\+key"),
        ([KEY, 1], "^entry 2: must be"),
        ([{"url": "https://a.x"}], "^entry 1: must be .* a mapping with a key"),
        ([{"key": KEY, "modules": []}], "^entry 1: modules must have at least one"),
        ([{"key": KEY, "name": "x"}], "^entry 1: name is not an option of a checksum database"),
        ([{"key": KEY, "url": "ftp://x"}], "^entry 1: 'ftp://x' is not"),
        ([KEY, KEY], r"names sum\.golang\.org twice"),
    ],
)
def test_mistakes(value: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        sumdb_options.databases(value)
