"""A Jinja2 filter that judges an operator's own certificate before it replaces anything."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def certificate_problem(certificate: str, key: str) -> str:
    """What keeps nginx from serving with a certificate (the first of its chain) and its key.

    Both are PEM. "" for nothing, else a sentence's end that names the variables of the role edge.
    """
    try:
        of_certificate = _openssl(certificate, "x509", "-noout", "-pubkey")
        of_key = _openssl(key, "pkey", "-passin", "pass:", "-pubout")
    except FileNotFoundError:
        return "the openssl command is missing on the controller: install openssl"
    if of_certificate is None:
        return "'edge_tls_certificate' is not a certificate in PEM"
    if of_key is None:
        return "'edge_tls_key' is not a key in PEM that can be read without a passphrase"
    if of_certificate != of_key:
        return "'edge_tls_key' is not the key of 'edge_tls_certificate'"
    return ""


def _openssl(text: str, *arguments: str) -> str | None:
    done = subprocess.run(
        ("openssl", *arguments), input=text, capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else None


class FilterModule:
    """Ansible finds the filter through this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"certificate_problem": certificate_problem}
