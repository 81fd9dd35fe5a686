"""Which checksum database is asked about a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.test_sumdb import Database as Log

from modhaven.databases import Database, Databases

if TYPE_CHECKING:
    from pathlib import Path


def database(folder: Path, name: str, modules: str = "") -> Database:
    key = Log().key
    return Database(
        name=name, key=key, mirrors=[], itself=None, folder=folder / name, nosumdb="",
        modules=modules,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "verifies", "corp_may_hear", "public_may_hear"),
    [
        ("rsc.io/quote", "public", True, True),
        ("git.corp.x/a", "corp", True, False),
        ("git.corp.x/other/b", "corp", True, False),
        # Private, and no database names it.
        ("secret.x/a", None, False, False),
        ("nosumdb.x/a", None, True, True),
    ],
)
def test_who_is_asked(
    tmp_path: Path, module: str, verifies: str | None, *, corp_may_hear: bool, public_may_hear: bool
) -> None:
    public = database(tmp_path, "public")
    corp = database(tmp_path, "corp", "git.corp.x")
    second = database(tmp_path, "second")
    databases = Databases(
        [public, corp, second], nosumdb="nosumdb.x", private="git.corp.x,secret.x"
    )
    client = databases.for_module(module)
    assert client is (getattr(databases.get(verifies), "client", None) if verifies else None)
    # The private pattern keeps the public database in the dark, our clients' questions included.
    assert databases.may_hear(public, module) is public_may_hear
    assert databases.may_hear(corp, module) is corp_may_hear


def test_without_a_database_for_all_the_others_verify_nothing(tmp_path: Path) -> None:
    databases = Databases([database(tmp_path, "corp", "git.corp.x")], nosumdb="", private="")
    assert databases.for_module("rsc.io/quote") is None
