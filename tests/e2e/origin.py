"""What the mirrors really hold: the bytes that everything behind modhaven is compared with."""

from __future__ import annotations

import functools
import hashlib
import http.client
import io
from dataclasses import dataclass
from pathlib import Path

import go
from tests.lab.inventory import lab
from tests.lab.web import ANY_CERTIFICATE

from modhaven import modpath, modzip

MIRROR = "goproxy.cn"
# The test database has other hashes than these zips, on purpose: the go command refuses them too.
CONTRADICTED = ("/example.com/dotname/@v/v1.0.0.zip", "/rsc.io/badfile1/@v/v1.0.0.zip")


@dataclass(frozen=True, kw_only=True)
class File:
    """A path below GOPROXY, and the SHA-256 of the mirror's own answer."""

    path: str
    sha256: str


class _Mirror(http.client.HTTPSConnection):
    """The mirror at its lab address under its public name; the lab's authority is not asked."""

    def __init__(self) -> None:
        address = lab().mirror_of(MIRROR).address
        super().__init__(address, timeout=30, context=ANY_CERTIFICATE)

    def get(self, path: str) -> bytes | None:
        self.request("GET", path, headers={"Host": MIRROR})
        answer = self.getresponse()
        body = answer.read()
        return body if answer.status == 200 else None


def sha256(body: bytes) -> str:
    """Give the SHA-256 of a body in hex."""
    return hashlib.sha256(body).hexdigest()


def _versions() -> list[tuple[str, str]]:
    """Escaped path and version of every test module that ships with the Go distribution."""
    folder = Path(go.__file__).parent / "src" / "cmd" / "go" / "testdata" / "mod"
    names = sorted(path.stem for path in folder.glob("*_v*.txt"))
    pairs = (name.rpartition("_v") for name in names)
    return [(path.replace("_", "/"), f"v{version}") for path, _, version in pairs]


@functools.cache
def files() -> tuple[File, ...]:
    """Every .info, .mod and .zip of the modules whose zip keeps the rules, in a fixed order."""
    mirror = _Mirror()
    found = []
    for path, version in _versions():
        bodies = {
            kind: mirror.get(f"/{path}/@v/{version}.{kind}") for kind in ("info", "mod", "zip")
        }
        if any(body is None for body in bodies.values()) or not _is_good(
            bodies["zip"] or b"", path, version
        ):
            continue
        found += [
            File(path=f"/{path}/@v/{version}.{kind}", sha256=sha256(body or b""))
            for kind, body in bodies.items()
            if f"/{path}/@v/{version}.{kind}" not in CONTRADICTED
        ]
    mirror.close()
    if len(found) < 300:
        raise AssertionError(f"only {len(found)} files on {MIRROR}: the lab's mirrors are broken")
    return tuple(found)


def _is_good(body: bytes, path: str, version: str) -> bool:
    try:
        module, exact = modpath.unescape_path(path), modpath.unescape_version(version)
        modpath.check(module, exact)
        modzip.check_and_hash(io.BytesIO(body), module, exact)
    except (modzip.BadZip, ValueError):
        return False
    return True
