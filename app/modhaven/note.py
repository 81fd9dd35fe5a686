"""Signed notes: text with Ed25519 signatures under it, as checksum databases sign tree heads.

Source: golang.org/x/mod/sumdb/note. A note is text of whole lines, an empty line, and one line
``— <name> <base64 of 4 bytes of key hash and the signature>`` for each signature. A verifier key is
``<name>+<key hash in hex>+<base64 of an algorithm byte and the public key>``.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_ED25519 = b"\x01"
_KEY_BYTES = 1 + 32
_KEY_HASH_BYTES = 4
_MAX_SIGNATURES = 100
_SIGNATURE_PREFIX = "— "
_CONTROL = re.compile("[\0-\x09\x0b-\x1f]")


class NoteError(ValueError):
    """Base of everything that can be wrong with a note or a key."""


class MalformedKeyError(NoteError):
    """A verifier key is not ``name+hash+key``, has an unknown algorithm or a hash that is wrong."""


class MalformedNoteError(NoteError):
    """The bytes are not a signed note."""


class InvalidSignatureError(NoteError):
    """A signature by a known key does not verify: the text was changed or the key is not theirs."""


class UnverifiedNoteError(NoteError):
    """The note is well-formed, but no known key has signed it."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with the name it signs under; ``key_hash`` are 4 bytes."""

    name: str
    key_hash: bytes
    key: Ed25519PublicKey

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Tell whether ``signature`` is this key's Ed25519 signature of ``message``."""
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Note:
    """A note at least one known key has signed: its text, ending in a newline, and whose keys."""

    text: str
    signed_by: tuple[Verifier, ...]


def key_hash(name: str, key: bytes) -> bytes:
    """Return the 4-byte hash of ``key``, algorithm byte included, under ``name``."""
    return hashlib.sha256(name.encode() + b"\n" + key).digest()[:_KEY_HASH_BYTES]


def parse_verifier(text: str) -> Verifier:
    """Return the verifier of a key such as ``sum.golang.org+033de0ae+Ac4z…``.

    Source: note.NewVerifier. Raises MalformedKeyError.
    """
    name, _, rest = text.partition("+")
    hex_hash, _, encoded = rest.partition("+")
    key = _decode(encoded)
    if not _is_name(name) or not re.fullmatch("[0-9a-fA-F]{8}", hex_hash) or not key:
        raise MalformedKeyError(f"verifier key {text!r} is not of the form name+hash+key")
    if bytes.fromhex(hex_hash) != key_hash(name, key):
        raise MalformedKeyError(f"verifier key {text!r}: the hash is not that of the key")
    if key[:1] != _ED25519:
        raise MalformedKeyError(f"verifier key {text!r}: unknown algorithm {key[0]}")
    if len(key) != _KEY_BYTES:
        raise MalformedKeyError(f"verifier key {text!r}: an Ed25519 key has 32 bytes")
    return Verifier(name, key_hash(name, key), Ed25519PublicKey.from_public_bytes(key[1:]))


def open_note(message: bytes, verifiers: Iterable[Verifier]) -> Note:
    """Parse a signed note and verify it with the known keys.

    Signatures by other keys are ignored. Source: note.Open. Raises MalformedNoteError,
    InvalidSignatureError if any signature by a known key is wrong, UnverifiedNoteError if there is
    none by a known key.
    """
    known = {(verifier.name, verifier.key_hash): verifier for verifier in verifiers}
    text, signatures = _split(message)
    signed_by: dict[tuple[str, bytes], Verifier] = {}
    for name, key, signature in signatures:
        verifier = known.get((name, key))
        if verifier is None or (name, key) in signed_by:
            continue
        if not verifier.verify(text.encode(), signature):
            raise InvalidSignatureError(f"invalid signature for key {name}+{key.hex()}")
        signed_by[name, key] = verifier
    if not signed_by:
        raise UnverifiedNoteError("note has no verifiable signatures")
    return Note(text, tuple(signed_by.values()))


def _split(message: bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Return the text of a note and its signatures as (name, key hash, signature)."""
    try:
        decoded = message.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedNoteError("malformed note: invalid UTF-8") from error
    if _CONTROL.search(decoded):
        raise MalformedNoteError("malformed note: control character")
    text, blank, block = decoded.rpartition("\n\n")
    if not blank or not block.endswith("\n"):
        raise MalformedNoteError("malformed note: no signatures after an empty line")
    lines = block[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise MalformedNoteError("malformed note: too many signatures")
    return text + "\n", [_parse_signature(line) for line in lines]


def _parse_signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_SIGNATURE_PREFIX).partition(" ")
    raw = _decode(encoded)
    if not line.startswith(_SIGNATURE_PREFIX) or not _is_name(name) or len(raw) <= _KEY_HASH_BYTES:
        raise MalformedNoteError("malformed note: malformed signature line")
    return name, raw[:_KEY_HASH_BYTES], raw[_KEY_HASH_BYTES:]


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(char.isspace() for char in name)


def _decode(encoded: str) -> bytes:
    """Return the bytes of standard base64, empty if it is malformed."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""
