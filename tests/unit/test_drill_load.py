"""The drill's load against a real server on loopback."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import Any

import pytest
from tests.conftest import FakeUpstream, Reply

from modhaven.drill import load as load_program
from modhaven.drill.load import Load, Outcome, Plan, look_up, summary

BODY = b"module m\n"
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def base(fake: FakeUpstream) -> str:
    hit = {"X-Modhaven-Cache": "HIT"}
    fake.default = Reply(body=b"module n\n", headers=hit)
    fake.script("good", Reply(body=BODY, headers=hit))
    fake.script("busy", Reply(status=503, body=b"module n\n", headers=hit))
    fake.script("cut", Reply(body=BODY + bytes(91), cut=91))
    return fake.url


def plan_of(targets: list[dict[str, str]], **options: object) -> dict[str, Any]:
    bounds = {"rate": 40, "seconds": 0.5, "timeout_seconds": 2, "allowed": ["127.0.0.1"]}
    return {"targets": targets, **bounds, **options}


def run(base: str, *paths: str, **options: object) -> dict[str, Any]:
    targets = [{"url": base + path, "sha256": SHA256} for path in paths]
    return Load(Plan.from_json({**plan_of(targets), **options})).run()


@pytest.mark.parametrize("keep_alive", [False, True])
def test_every_good_answer_counts(base: str, *, keep_alive: bool) -> None:
    result = run(base, "/good", keep_alive=keep_alive)
    assert (result["sent"], result["ok"], result["failed"]) == (20, 20, 0)
    assert result["cache"] == {"HIT": 20}
    assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["max_ms"]
    assert result["longest_gap_seconds"] < 0.4


def test_wrong_bytes_statuses_and_cut_bodies_are_failures(base: str) -> None:
    result = run(base, "/good", "/other", "/busy", "/cut")
    assert (result["ok"], result["failed"], result["wrong_bytes"]) == (5, 15, 5)
    assert set(result["errors"]) == {
        "ValueError: wrong bytes",
        "ValueError: status 503",
        "ConnectionError: body cut at 9 of 100 octets",
    }


def test_a_refused_connection_is_a_failure(base: str) -> None:
    del base
    result = run("http://127.0.0.1:9", "/good")
    assert (result["ok"], result["failed"]) == (0, 20)
    assert result["p50_ms"] is None


@pytest.mark.parametrize("url", ["http://192.0.2.1/x", "http://10.0.4.1/", "ftp://127.0.0.1/"])
def test_an_address_that_is_not_allowed_is_refused(url: str) -> None:
    plan = Plan(targets=((url, SHA256),), allowed=("10.0.3.100",), rate=1, seconds=1)
    with pytest.raises(ValueError, match=r"none of the addresses|no http"):
        look_up(plan)


def test_an_edge_that_the_client_cannot_resolve_is_only_not_allowed() -> None:
    url = "http://127.0.0.1/x"
    plan = Plan(targets=((url, ""),), allowed=("127.0.0.1", "edge1.invalid"), rate=1, seconds=1)
    assert [target.address for target in look_up(plan)] == ["127.0.0.1"]
    plan = Plan(targets=((url, ""),), allowed=("edge1.invalid",), rate=1, seconds=1)
    with pytest.raises(ValueError, match=r"none of the addresses .*: edge1\.invalid"):
        look_up(plan)


@pytest.mark.parametrize(
    "options", [{"rate": 501}, {"seconds": 601}, {"rate": 500, "seconds": 600}, {"targets": []}]
)
def test_a_plan_without_bounds_is_refused(options: dict[str, Any]) -> None:
    targets = [{"url": "http://127.0.0.1/", "sha256": SHA256}]
    with pytest.raises(ValueError, match=r"rate|targets"):
        Plan.from_json({**plan_of(targets), **options})


def test_as_a_stream_it_ends_with_its_input(base: str) -> None:
    target = {"url": f"{base}/good", "sha256": ""}
    process = subprocess.Popen(
        [sys.executable, str(load_program.__file__), "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(plan_of([target], seconds=60)) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["started"] > 0
        first = json.loads(process.stdout.readline())
        assert (first["error"], first["sha256"], first["cache"]) == ("", SHA256, "HIT")
        process.stdin.close()
        rest = process.stdout.readlines()
    assert process.returncode == 0
    assert len(rest) < 40


def test_the_gap_counts_the_beginning_the_middle_and_the_end() -> None:
    def gap(*ended: float) -> float:
        good = [Outcome(due=at, ended=at, url="") for at in ended]
        last = Outcome(due=10.0, ended=10.0, url="", error="refused")
        result = summary([*good, last], 10, 0.0, 10.0)
        return float(result["longest_gap_seconds"])

    assert gap(1, 2, 6, 7, 9.5) == 4
    assert gap(5, 6, 9) == 5
    assert gap(1, 2, 3) == 7
