"""note; cases from the test tables of golang.org/x/mod/sumdb/note."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from modhaven import note

SUM_GOLANG_ORG = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
PETER_SIG = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXg"
    "KvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_SIG = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01"
    "oOTGwnWLox33WWd1RvMc+QQ=\n"
)
PETER, ENOCH = note.parse_verifier(PETER_KEY), note.parse_verifier(ENOCH_KEY)


def message(*signatures: str, text: str = TEXT) -> bytes:
    return (text + "\n" + "".join(signatures)).encode()


def test_key_of_the_public_database() -> None:
    verifier = note.parse_verifier(SUM_GOLANG_ORG)
    assert verifier.name == "sum.golang.org"
    assert verifier.key_hash.hex() == "033de0ae"


def test_name_with_a_path() -> None:
    key = "localhost.localdev/sumdb+00000c67+AcTrnkbUA+TU4heY3hkjiSES/DSQniBqIeQ/YppAUtK6"
    assert note.parse_verifier(key).name == "localhost.localdev/sumdb"


def test_every_part_of_a_key_is_refused() -> None:
    for start in range(len(PETER_KEY)):
        for end in range(start + 1, len(PETER_KEY) + 1):
            if (start, end) != (0, len(PETER_KEY)):
                with pytest.raises(note.MalformedKeyError):
                    note.parse_verifier(PETER_KEY[start:end])


def test_every_changed_key_is_refused() -> None:
    for at, char in enumerate(PETER_KEY):
        with pytest.raises(note.MalformedKeyError):
            note.parse_verifier(PETER_KEY[:at] + chr(ord(char) + 1) + PETER_KEY[at + 1 :])


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (
            "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
            "32 bytes|form",
        ),
        ("PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "algorithm"),
        ("", "form"),
        ("a b+c74f20a3+ARpc", "form"),
        (PETER_KEY + "\n", "form"),
    ],
)
def test_malformed_keys(key: str, why: str) -> None:
    with pytest.raises(note.MalformedKeyError, match=why):
        note.parse_verifier(key)


def test_open() -> None:
    one = note.open_note(message(PETER_SIG, ENOCH_SIG), [PETER])
    assert (one.text, one.signed_by) == (TEXT, (PETER,))
    assert note.open_note(message(PETER_SIG, ENOCH_SIG), [ENOCH, PETER]).signed_by == (PETER, ENOCH)
    assert note.open_note(message(PETER_SIG, PETER_SIG), [PETER]).signed_by == (PETER,)


def test_no_known_key() -> None:
    with pytest.raises(note.UnverifiedNoteError):
        note.open_note(message(PETER_SIG, ENOCH_SIG), [])
    with pytest.raises(note.UnverifiedNoteError):
        note.open_note(message(PETER_SIG), [ENOCH])
    # The right name with another key hash is another key.
    with pytest.raises(note.UnverifiedNoteError):
        note.open_note(message(PETER_SIG.replace("x08g", "xxxx")), [PETER])
    with pytest.raises(note.UnverifiedNoteError):
        note.open_note(message(PETER_SIG.replace("Peter", "Paul")), [PETER])


@pytest.mark.parametrize(
    "bad",
    [
        message(PETER_SIG[:60] + "ABCD" + PETER_SIG[60:]),
        message(ENOCH_SIG, PETER_SIG, text=TEXT.replace("you", "we")),
        message(PETER_SIG, text="\n" + TEXT),
    ],
)
def test_invalid_signature(bad: bytes) -> None:
    with pytest.raises(note.InvalidSignatureError, match=r"PeterNeumann\+c74f20a3"):
        note.open_note(bad, [PETER])


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        TEXT.encode(),
        message(),
        message(PETER_SIG[:-1]),
        b"\x01" + message(PETER_SIG),
        b"\xff" + message(PETER_SIG),
        b"a\tb\r" + message(PETER_SIG),
        message("— Bad Name " + PETER_SIG.split(" ")[2]),
        message(PETER_SIG, "Unexpected line.\n"),
        message("— PeterNeumann \n"),
        message("— PeterNeumann x08g\n"),
        message("— PeterNeumann x08gow\n"),
        message("— PeterNeumann not*base64\n"),
        message("— " + PETER_SIG),
        message(*[PETER_SIG] * 101),
    ],
)
def test_malformed_notes(bad: bytes) -> None:
    with pytest.raises(note.MalformedNoteError):
        note.open_note(bad, [PETER])


def test_a_hundred_signatures_are_allowed() -> None:
    assert note.open_note(message(*[PETER_SIG] * 100), [PETER]).text == TEXT


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.binary(max_size=3))
def test_what_is_signed_opens_and_what_is_changed_does_not(text: str, change: bytes) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    key = b"\x01" + private.public_key().public_bytes_raw()
    key_hash = note.key_hash("x", key)
    verifier = note.parse_verifier(f"x+{key_hash.hex()}+{base64.b64encode(key).decode()}")
    text += "\n"
    signature = base64.b64encode(key_hash + private.sign(text.encode())).decode()
    signed = f"{text}\n— x {signature}\n".encode()
    assert note.open_note(signed, [verifier]).text == text
    if change:
        with pytest.raises(note.NoteError):
            note.open_note(change + signed, [verifier])


@given(st.binary())
def test_rubbish_never_crashes(data: bytes) -> None:
    with pytest.raises(note.NoteError):
        note.open_note(data, [PETER])
