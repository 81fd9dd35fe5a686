"""An own certificate that nginx could not serve with is told before anything is replaced."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.unit.ansible_plugin import load

if TYPE_CHECKING:
    from pathlib import Path

certificate_problem = load("filter/certificate.py").certificate_problem
REFUSED_KEY = "'edge_tls_key' is not a key in PEM that can be read without a passphrase"


def openssl(*arguments: str | Path) -> str:
    return subprocess.run(
        ("openssl", *arguments), check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Two certificates, each with its key."""
    folder = tmp_path_factory.mktemp("pairs")
    made = []
    for kind in ("ed25519", "rsa:2048"):
        key, certificate = folder / "key", folder / "certificate"
        openssl("req", "-x509", "-newkey", kind, "-noenc", "-subj", "/CN=go.example.com",
                "-keyout", key, "-out", certificate)  # fmt: skip
        made.append((certificate.read_text(), key.read_text()))
    return made


def test_a_certificate_and_its_key_are_no_problem(pairs: list[tuple[str, str]]) -> None:
    assert [certificate_problem(*pair) for pair in pairs] == ["", ""]


def test_the_first_certificate_of_a_chain_is_the_one(pairs: list[tuple[str, str]]) -> None:
    (first, key), (second, other) = pairs
    assert certificate_problem(first + second, key) == ""
    assert certificate_problem(first + second, other) != ""


def test_the_key_of_another_certificate_is_refused(pairs: list[tuple[str, str]]) -> None:
    (certificate, _), (_, key) = pairs
    expected = "'edge_tls_key' is not the key of 'edge_tls_certificate'"
    assert certificate_problem(certificate, key) == expected


def test_what_is_no_certificate_or_no_key_is_named(pairs: list[tuple[str, str]]) -> None:
    certificate, key = pairs[0]
    expected = "'edge_tls_certificate' is not a certificate in PEM"
    assert certificate_problem(key, key) == expected
    assert certificate_problem(certificate, certificate) == REFUSED_KEY


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(
    pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    certificate, key = pairs[1]
    (tmp_path / "key").write_text(key)
    closed = openssl("pkey", "-in", tmp_path / "key", "-aes256", "-passout", "pass:secret")
    assert certificate_problem(certificate, closed) == REFUSED_KEY
