"""The mirror of the benchmarks: the Go team's own test modules with their checksum database."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.loopback import GO
from tests.conftest import ROOT, TEST_SUMDB, GoTestServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAST_VERSIONS = 150


@contextlib.contextmanager
def mirror(port: int | None = None) -> Iterator[Mirror]:
    """Build it where that was not done before, and run it on ``port``, or on some free one."""
    done = subprocess.run(
        [ROOT / "tests/lab/go_test_server.sh"], check=True, text=True, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    binary, folder = done.stdout.split()
    server = Mirror(binary, folder, port or free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Mirror(GoTestServer):
    """The server, and where its modules are."""

    def __init__(self, binary: str, folder: str, port: int) -> None:
        super().__init__(binary, folder, port)
        self.folder, self.port = folder, port

    def versions(self, home: Path) -> list[str]:
        """Return what can be downloaded, as ``module@version``; some modules are broken on purpose.

        ``home`` is a folder for a client that is not there yet.
        """
        names = sorted(path.stem for path in Path(self.folder, "testdata/mod").glob("*.txt"))
        listed = go_mod_download(home, self.root, "-json", *map(_module, names))
        decoder, text, good = json.JSONDecoder(), listed.stdout.decode().lstrip(), set()
        while text:
            item, end = decoder.raw_decode(text)
            text = text[end:].lstrip()
            if "Error" not in item:
                good.add(f"{item['Path']}@{item['Version']}")
        if len(good) < _LEAST_VERSIONS:
            raise RuntimeError(f"only {len(good)} versions can be downloaded from Go's test server")
        return sorted(good)


def go_mod_download(
    home: Path, goproxy: str, *arguments: str, verify: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run the go command as on a machine that has downloaded nothing yet, in the new ``home``.

    ``verify``: with the checksum database, by way of ``goproxy``.
    """
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GOPROXY": goproxy,
        "GOSUMDB": TEST_SUMDB if verify else "off",
        "GOFLAGS": "-modcacherw",
        "GOTOOLCHAIN": "local",
    }
    return subprocess.run(
        [GO, "mod", "download", *arguments], cwd=home, env=environment, check=False,
        capture_output=True,
    )  # fmt: skip


def _module(name: str) -> str:
    """Return ``module@version`` of a file of cmd/go/testdata/mod (its README has the rule)."""
    path, _, version = name.rpartition("_v")
    return f"{path.replace('_', '/')}@v{version}"
