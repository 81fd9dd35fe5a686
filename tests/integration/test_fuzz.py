"""Hostile requests: none is a 500, none touches a file outside the store, none is passed on.

MODHAVEN_FUZZ_SEED repeats a run, MODHAVEN_FUZZ_REQUESTS makes it shorter or longer.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from tests.conftest import ROOT, TEST_SUMDB, FakeUpstream, Reply
from tests.integration import fuzz_rules
from tests.integration.fuzz_requests import make_request
from tests.integration.test_app_go import serve  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from tests.integration.test_app_go import Server, Servers

pytestmark = pytest.mark.integration
SEED = os.environ.get("MODHAVEN_FUZZ_SEED") or secrets.token_hex(8)
REQUESTS = int(os.environ.get("MODHAVEN_FUZZ_REQUESTS", "200000"))
PROCESSES = 2
ON_THE_WIRE = 4000


def work(seed: str, count: int) -> dict[str, int]:
    # In memory where there is such a place: waiting for flushes would be most of the run.
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        return run_worker(seed, count, folder)


def run_worker(seed: str, count: int, folder: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.fuzz_worker", seed, str(count), folder],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}/app:{ROOT}"}, check=False,
        capture_output=True, text=True, timeout=340,
    )  # fmt: skip
    assert done.returncode == 0, f"MODHAVEN_FUZZ_SEED={SEED}\n{done.stderr[-5000:]}"
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


# A minute on two idle cores; the bound is for a machine with other work.
@pytest.mark.timeout(360)
def test_hostile_requests_through_the_application() -> None:
    share = -(-REQUESTS // PROCESSES)
    with ThreadPoolExecutor(PROCESSES) as pool:
        runs = [pool.submit(work, f"{SEED}/{number}", share) for number in range(PROCESSES)]
    total: Counter[str] = Counter()
    for run in runs:
        total.update(run.result())
    print(f"MODHAVEN_FUZZ_SEED={SEED}:", dict(total))  # noqa: T201 - how to repeat it
    assert sum(total[status] for status in ("200", "400", "404", "405", "502", "504")) >= REQUESTS
    # Had all of it been refused at the door, the run would prove little.
    for status in ("200", "400", "404", "405", "502"):
        assert total[status] > REQUESTS / 1000, status
    assert total["asked of the upstream"] > REQUESTS / 100


def mangle(rng: random.Random, wire: bytes) -> bytes:
    """Break the framing too: what no parser of targets ever sees."""
    chance = rng.random()
    if chance < 0.6:
        return wire
    at = rng.randrange(len(wire))
    if chance < 0.7:
        return wire[:at]
    if chance < 0.8:
        return wire[:at] + rng.randbytes(rng.choice((1, 2, 50))) + wire[at:]
    junk = (
        b" ", b"\r\n", b"\n", b"\r", b"\x00", b":", b"HTTP/1 ", b" HTTP/9.9\r\n", b"\r\n\r\n",
        b"A" * 9000, b"\r\nTransfer-Encoding: chunked\r\n", b"\r\n folded: x\r\n",
        b"\r\nTransfer-Encoding: xchunked\r\n",
        b"\r\nContent-Length: 5\r\n\r\nhello",
    )  # fmt: skip
    return wire[:at] + rng.choice(junk) + wire[at:]


def exchange(server: Server, wire: bytes) -> bytes:
    """Return what comes back until the server closes; it may close before it has read all."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        try:
            connection.sendall(wire)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except (ConnectionResetError, BrokenPipeError):
            return b""


def test_hostile_bytes_on_the_wire(
    serve: Servers,  # noqa: F811 - the fixture
    fake: FakeUpstream,
) -> None:
    fake.script("example.com/@v/list", Reply(body=b"v1.0.0\n"))
    server = serve(fake.url, sumdb=f"{TEST_SUMDB} {fake.url}/{fuzz_rules.ITSELF}")
    rng = random.Random(SEED)  # noqa: S311 - to be repeated, not secret
    wires = [mangle(rng, make_request(rng).wire) for _ in range(ON_THE_WIRE)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda wire: exchange(server, wire), wires))
    statuses: Counter[str] = Counter()
    for wire, answer in zip(wires, answers, strict=True):
        # One or more answers, where the bytes happen to be several requests, or none.
        found = re.findall(rb"^HTTP/1\.[01] ([0-9]{3}) ", answer, re.MULTILINE)
        assert found or not answer, (SEED, wire, answer)
        for status in found:
            # 501: a transfer coding that is unknown (RFC 9112, section 6.1).
            good = status < b"500" or status in (b"502", b"504")
            assert good or (status == b"501" and b"ransfer-" in wire), (SEED, wire, answer)
            statuses[status.decode()] += 1
    print(f"MODHAVEN_FUZZ_SEED={SEED}:", dict(statuses))  # noqa: T201 - how to repeat it
    assert {"200", "400", "404", "405"} <= statuses.keys()
    for question in fake.counts:
        where = unquote(question)
        assert not question or fuzz_rules.is_question(where), (SEED, question)
    assert server.get("healthz").text == "ok\n"
    server.stop()
    fuzz_rules.check_tree(server.store)
    assert {path.name for path in server.folder.iterdir()} == {
        "modhaven.yml",
        "stdout",
        "stderr",
        "store",
    }
    for line in (server.folder / "stdout").read_text().splitlines(keepends=True):
        fuzz_rules.check_log_line(line)
