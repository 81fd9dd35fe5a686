"""A company's own checksum database beside the public one."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from tests.conftest import TEST_SUMDB, FakeUpstream, GoTestServer, Reply
from tests.integration.test_app_go import Servers, serve
from tests.unit.test_sumdb import Database
from tests.unit.test_wsgi import BASE, MOD, MODULE, VERSION, ZIP, make_zip

from modhaven import modzip

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["serve"]

pytestmark = pytest.mark.integration
QUOTE = "rsc.io/quote/@v/v1.5.2.zip"
LOOKUP = f"lookup/{MODULE}@{VERSION}"


@pytest.fixture
def corp() -> Iterator[FakeUpstream]:
    """A mirror of private modules at /modules, their checksum database at /db."""
    log = Database()
    zip_hash = modzip.check_and_hash(io.BytesIO(ZIP), MODULE, VERSION)
    log.add(
        MODULE,
        VERSION,
        f"{MODULE} {VERSION} {zip_hash}\n{MODULE} {VERSION}/go.mod {modzip.hash_go_mod(MOD)}\n",
    )
    fake = FakeUpstream()
    for path in (LOOKUP, "latest", "tile/8/0/000.p/1"):
        fake.script(f"db/{path}", Reply(body=log(path)))
    fake.script(f"modules/{BASE}.mod", Reply(body=MOD))
    fake.script(f"modules/{BASE}.zip", Reply(body=ZIP))
    yield fake
    fake.close()


def test_each_verifies_its_own_modules(
    serve: Servers, go_server: GoTestServer, corp: FakeUpstream, fake: FakeUpstream
) -> None:
    server = serve(
        [
            {"url": corp.url + "/modules", "name": "corp", "modules": [MODULE]},
            {"url": fake.url, "name": "public"},
            {"url": go_server.root, "name": "gotest"},
        ],
        private=[MODULE],
        sumdb=[
            f"{TEST_SUMDB} http://127.0.0.1:9",
            {"key": Database().key, "url": corp.url + "/db", "modules": [MODULE]},
        ],
        require_verified=True,
    )  # fmt: skip
    assert server.get(f"{BASE}.zip").content == ZIP
    assert server.get(QUOTE).status_code == 200
    assert 'modhaven_verifications_total{verdict="verified"} 2.0' in server.get("metrics").text
    # Our clients may ask the company's database here, and the public one not about this module.
    name = Database().key.partition("+")[0]
    assert server.get(f"sumdb/{name}/{LOOKUP}").content == corp.replies[f"db/{LOOKUP}"][0].body
    refused = server.get(f"sumdb/localhost.localdev/sumdb/{LOOKUP}")
    assert (refused.status_code, "private" in refused.text) == (404, True)
    # Nobody in public has heard of the module, nor of its database.
    assert not any(MODULE in path or name in path for path in fake.counts)


def test_other_bytes_than_the_companys_database_knows_are_wrong(
    serve: Servers, corp: FakeUpstream
) -> None:
    corp.script(f"modules/{BASE}.zip", Reply(body=make_zip(b"evil")))
    database = {"key": Database().key, "url": corp.url + "/db", "modules": [MODULE]}
    server = serve(corp.url + "/modules", sumdb=[database])
    answer = server.get(f"{BASE}.zip")
    assert (answer.status_code, "wrong bytes" in answer.text) == (502, True)
    assert server.get(f"{BASE}.mod").content == MOD
