"""sumdb and modzip against the Go team's own test database and modules (cmd/go's proxy_test.go)."""

import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import free_port

from modhaven import modpath, modzip, sumdb
from modhaven.sumdb import Client, DiskState

pytestmark = pytest.mark.integration

NAME = "localhost.localdev/sumdb"
KEY = f"{NAME}+00000c67+AcTrnkbUA+TU4heY3hkjiSES/DSQniBqIeQ/YppAUtK6"
# The test database leaves names that start with a dot out of its hashes, the test proxy does not.
UNLIKE_THEIR_RECORD = {"example.com/dotname", "rsc.io/badfile1"}
BAD_ZIPS = {f"rsc.io/badfile{n}" for n in range(2, 6)} | {"rsc.io/badzip"}
SCRIPT = Path(__file__).parents[1] / "lab" / "go_test_server.sh"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the test proxy, started for these tests."""
    binary, folder = subprocess.run(
        [SCRIPT], check=True, capture_output=True, text=True
    ).stdout.split()
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [binary, f"-proxy={address}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        base = f"http://{address}/mod"
        for _ in range(300):
            try:
                get(f"{base}/sumdb/{NAME}/supported")
                break
            except sumdb.Unreachable:
                time.sleep(0.1)
        yield base
    finally:
        process.kill()
        process.wait()


def get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 (loopback)
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in {404, 410}:
            raise sumdb.NotFound(url) from error
        raise sumdb.Unreachable(f"{url}: {error.code}") from error
    except OSError as error:
        raise sumdb.Unreachable(url) from error


def client(base: str, folder: Path, database: str = f"sumdb/{NAME}") -> Client:
    return Client(KEY, lambda path: get(f"{base}/{database}/{path}"), DiskState(folder))


def module_versions() -> list[tuple[str, str]]:
    """The proxy's module versions, as its archives in testdata/mod are named."""
    folder = SCRIPT.parents[2] / ".venv"
    archives = folder.glob("lib/python*/site-packages/go/src/cmd/go/testdata/mod/*.txt")
    found = []
    for archive in sorted(archives):
        match = re.fullmatch(r"(.+)_(v[0-9][^_]*)", archive.stem)
        if match is not None:
            found.append((match[1].replace("_", "/"), match[2]))
    return found


def test_every_module_has_the_hash_of_the_database(server: str, tmp_path: Path) -> None:
    database = client(server, tmp_path)
    verified = 0
    for module, version in module_versions():
        if module in UNLIKE_THEIR_RECORD:
            continue
        try:
            modpath.check(module, version)
            url = f"{server}/{modpath.escape_path(module)}/@v/{modpath.escape_version(version)}"
            data = get(f"{url}.zip")
            go_mod = get(f"{url}.mod")
        except (ValueError, sumdb.SumdbError):
            continue  # the proxy has broken modules on purpose
        archive = tmp_path / "module.zip"
        archive.write_bytes(data)
        try:
            expected = database.lookup_hash(module, version)
        except (sumdb.NotFound, sumdb.Unreachable):
            continue
        if module in BAD_ZIPS:
            with pytest.raises(modzip.BadZip):
                modzip.check_and_hash(archive, module, version)
            continue
        assert modzip.check_and_hash(archive, module, version) == expected
        assert modzip.hash_go_mod(go_mod) == database.lookup_hash(module, version, "/go.mod")
        verified += 1
    assert verified > 240
    assert int(database.head.split(b"\n")[1]) >= verified


def test_restart(server: str, tmp_path: Path) -> None:
    known = client(server, tmp_path).lookup_hash("rsc.io/sampler", "v1.3.0")
    again = client(server, tmp_path)
    assert again.latest()
    assert again.lookup_hash("rsc.io/quote", "v1.5.2")
    assert again.lookup_hash("rsc.io/sampler", "v1.3.0") == known


def test_wrong_database_is_a_fork(server: str, tmp_path: Path) -> None:
    # Same key, other hashes: exactly what a database must never do.
    good = client(server, tmp_path)
    assert good.lookup_hash("rsc.io/quote", "v1.5.2")
    wrong = client(server, tmp_path, "sumdb-wrong")
    with pytest.raises(sumdb.ForkError) as caught:
        wrong.lookup("rsc.io/sampler", "v1.3.0")
    assert caught.value.proof == good.fork


def test_redirected_lookup_is_refused(server: str, tmp_path: Path) -> None:
    # A true record of the same database, but of another module than was asked for.
    redirecting = client(server, tmp_path, "sumdb-redirect/rsc.io/quote@v1.5.2:")
    assert redirecting.lookup_hash("rsc.io/quote", "v1.5.2")
    with pytest.raises(sumdb.SecurityError, match="not about"):
        redirecting.lookup("rsc.io/sampler", "v1.3.0")


def test_unknown_module(server: str, tmp_path: Path) -> None:
    with pytest.raises((sumdb.NotFound, sumdb.Unreachable)):
        client(server, tmp_path).lookup("example.com/no-such-module", "v1.0.0")
