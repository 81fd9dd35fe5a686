"""A process that is killed at any step of a publication leaves the whole file, or none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.conftest import ROOT, TEST_SUMDB, FakeUpstream, Reply
from tests.unit.test_wsgi import BASE, INFO, MOD, ZIP, build, call

from modhaven.reverify import judge
from modhaven.store.disk import DiskStore
from modhaven.verify import MismatchError, Verdict, Verifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from modhaven.protocol import Request

pytestmark = pytest.mark.integration

# For each step it is told, a child is forked that kills itself before its Nth operation on a file
# of the store: what it had done until then is what a crash would leave. The operations are seen
# from outside, by an audit hook: the product knows nothing of it.
KILLED = """
import os, pathlib, signal, sys
root = sys.argv[1]
left = 1 << 60

def count():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

def hook(event, arguments):
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.utime", "os.truncate"):
        if str(arguments[0]).startswith(root):
            count()

real_fsync = os.fsync
def fsync(descriptor):
    count()
    real_fsync(descriptor)
    count()

os.fsync = fsync
sys.addaudithook(hook)
{body}
for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        work = prepare()
        left = int(line)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""

PUBLISH = """
from tests.unit.test_wsgi import call
from modhaven import config, serve

def prepare():
    app = serve.build(config.load(pathlib.Path(root).parent / "modhaven.yml"))
    def work():
        if call(app, "/" + sys.argv[2]).status != 200:
            os._exit(3)
    return work
"""

WITHDRAW = """
from tests.integration.test_crash import Contradicting, KEY
from modhaven.reverify import judge
from modhaven.store.disk import DiskStore
from modhaven.verify import MismatchError

def prepare():
    store = DiskStore(pathlib.Path(root), min_free_bytes=0)
    def work():
        try:
            judge(store, Contradicting(), KEY)
        except MismatchError:
            os._exit(0)
        os._exit(3)
    return work
"""

KEY = f"{BASE}.zip"
LISTED = f"{BASE.rpartition('/')[0]}/list"


class Contradicting(Verifier):
    """What the database would say of a file that is not its own."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)

    def verify(self, request: Request, file: object) -> Verdict:  # noqa: ARG002
        raise MismatchError("hash is h1:a, the checksum database has h1:b")


def killed_at_every_step(root: Path, body: str, *arguments: str) -> Iterator[int]:
    """Yield after each death the number of the step, until the work is done before its turn."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED.format(body=body), root, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/app:{ROOT}"},
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for step in range(200):
            process.stdin.write(f"{step}\n")
            process.stdin.flush()
            status = int(process.stdout.readline())
            assert status in (0, -signal.SIGKILL)
            yield step
            if status == 0:
                process.stdin.close()
                return
        raise AssertionError("the work does not end")


def configure(folder: Path, chain: str, **changes: Any) -> None:
    settings = {
        "store": {"path": str(folder / "store"), "min_free_bytes": 0},
        "upstreams": chain,
        "upstream_retries": 0,
        "upstream_rounds": 1,
        **changes,
    }
    (folder / "modhaven.yml").write_text(yaml.safe_dump(settings))


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@dataclass(frozen=True, kw_only=True)
class Case:
    extension: str
    body: bytes
    database: str


@pytest.mark.parametrize(
    "case",
    [
        Case(extension="zip", body=ZIP, database="pinned"),
        Case(extension="mod", body=MOD, database="silent"),
        Case(extension="info", body=INFO, database="off"),
    ],
    ids=lambda case: f"{case.extension}, {case.database}",
)
def test_a_publication(tmp_path: Path, fake: FakeUpstream, refused_url: str, case: Case) -> None:
    root, key = tmp_path / "store", f"{BASE}.{case.extension}"
    published = root / "cache" / "download"
    fake.script(key, Reply(body=case.body))
    nosumdb = "example.com" if case.database == "pinned" else ""
    sumdb = "off" if case.database == "off" else f"{TEST_SUMDB} {refused_url}"
    changes: dict[str, Any] = {"sumdb": sumdb, "nosumdb": nosumdb}
    configure(tmp_path, fake.url, **changes)
    allowed = {key, LISTED} if case.extension == "info" else {key}
    without = 0
    for _ in killed_at_every_step(root, PUBLISH, key):
        assert {name for name in names(published) if not name.startswith("sumdb/")} <= allowed
        there = (published / key).exists()
        if there:
            assert (published / key).read_bytes() == case.body
            # Marker and pin come first: nothing is visible that is not accounted for.
            assert (root / "unverified" / key).exists() == (case.database == "silent")
            assert (root / "pins" / key).exists() == (case.database == "pinned")
        if (published / LISTED).exists():
            assert (there, (published / LISTED).read_bytes()) == (True, b"v1.0.0\n")
        without += not there
        # Who comes next is served at once: the dead hold no lock.
        answer = call(build(tmp_path, fake.url, **changes), f"/{key}")
        assert (answer.status, answer.body) == (200, case.body)
        shutil.rmtree(root)
    assert without > 3


def test_a_withdrawal_is_finished_by_who_comes_next(tmp_path: Path) -> None:
    root = tmp_path / "store"
    published = root / "cache" / "download"

    def publish() -> DiskStore:
        store = DiskStore(root, min_free_bytes=0)
        for key, body in ((f"{BASE}.info", INFO), (KEY, b"evil")):
            with store.stage(key) as staged:
                staged.file.write(body)
                staged.publish(unverified=key == KEY)
        return store

    store = publish()
    for step in killed_at_every_step(root, WITHDRAW):
        if (published / KEY).exists():
            assert (published / KEY).read_bytes() == b"evil"
            assert list(store.unverified()) == [KEY]
            with pytest.raises(MismatchError):
                judge(store, Contradicting(), KEY)
        else:
            assert step > 3
            assert judge(store, Contradicting(), KEY) is None
        assert names(published) == [LISTED]
        assert (published / LISTED).read_bytes() == b""
        assert list(store.unverified()) == []
        assert len(list((root / "quarantine").glob("*.reason"))) == 1
        shutil.rmtree(root)
        store = publish()
