"""Credentials from files: three forms, read again on change, quoted nowhere."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest

from modhaven.attempt import AttemptError
from modhaven.credentials import Credentials

if TYPE_CHECKING:
    from pathlib import Path


def header(file: Path, credentials: Credentials | None = None) -> str:
    credentials = credentials or Credentials(file, host="athens.x")
    return credentials.header()


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("user:pass word:x\n", basic("user:pass word:x")),
        ("bearer t0ken.x_y\n", "Bearer t0ken.x_y"),
        ("Bearer t0ken", "Bearer t0ken"),
        ("machine other.x login a password b\nmachine athens.x login u password p", basic("u:p")),
        ("machine athens.x\n  login u\n  password p\n", basic("u:p")),
        ("default login u password p", basic("u:p")),
    ],
)
def test_the_forms(tmp_path: Path, text: str, wanted: str) -> None:
    file = tmp_path / "credentials"
    file.write_text(text)
    assert header(file) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "secret", "bearer", "bearer secret secret", "machine other.x login u password secret",
     "machine athens.x logn secret", "user:secret\nuser:secret"],
)  # fmt: skip
def test_what_is_none_of_them_is_said_without_quoting_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "credentials"
    file.write_text(text)
    with pytest.raises(AttemptError) as caught:
        header(file)
    assert str(file) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AttemptError, match="No such file"):
        header(tmp_path / "none")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("u:one")
    credentials = Credentials(file, host="athens.x")
    assert header(file, credentials) == basic("u:one")
    file.write_text("u:two")
    os.utime(file, ns=(1, 1))
    assert header(file, credentials) == basic("u:two")
