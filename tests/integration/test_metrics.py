"""What monitors and operators are told, with several workers."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import FakeUpstream, Reply
from tests.integration.test_app_go import Server, Servers, serve
from tests.unit.test_wsgi import BASE, MOD, ZIP, make_zip

from modhaven.pool.nginx import in_flight

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["serve"]

pytestmark = pytest.mark.integration


def value(server: Server, name: str, **labels: str) -> float:
    """Return the sum of the samples that have these labels; 0 for none."""
    answer = server.get("metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return sum(
        sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def workers(server: Server) -> list[int]:
    listed = subprocess.run(
        ["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True
    )
    return [int(pid) for pid in listed.stdout.split()]


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_all_workers_are_summed_and_survive_a_reload_and_a_death(
    serve: Servers, fake: FakeUpstream
) -> None:
    server = serve(fake.url, sumdb="off", workers=3)
    fake.script(f"{BASE}.mod", Reply(body=MOD))

    def asked() -> float:
        return value(server, "modhaven_requests_total", **{"class": "immutable", "status": "200"})

    for _ in range(30):
        assert server.get(f"{BASE}.mod").content == MOD
    assert asked() == 30
    old = workers(server)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(workers(server)) == 3 and not set(workers(server)) & set(old))
    os.kill(workers(server)[0], signal.SIGKILL)
    for _ in range(30):
        assert server.get(f"{BASE}.mod").content == MOD
    assert asked() == 60
    assert value(server, "modhaven_upstream_attempts_total", upstream=fake.name, outcome="ok") == 1


def test_what_is_counted(serve: Servers, fake: FakeUpstream, fake2: FakeUpstream) -> None:
    server = serve(f"{fake.url}|{fake2.url}", sumdb="off", upstream_retries=0, upstream_rounds=1)
    fake.default = Reply(status=500)
    fake2.script(f"{BASE}.zip", Reply(body=ZIP))
    fake2.script("example.com/m/@v/v1.0.1.zip", Reply(body=make_zip()))
    assert server.get(f"{BASE}.zip").content == ZIP
    assert server.get("example.com/none/@v/list").status_code == 502
    assert server.get("example.com/m/@v/v1.0.1.zip").status_code == 502
    assert server.get("rsc.io/../x").status_code == 404
    attempts = "modhaven_upstream_attempts_total"
    assert value(server, attempts, upstream=fake.name, outcome="failed") == 3
    assert value(server, attempts, upstream=fake2.name, outcome="ok") == 1
    assert value(server, attempts, upstream=fake2.name, outcome="not_found") == 1
    assert value(server, "modhaven_verifications_total", verdict="pinned") == 1
    assert value(server, "modhaven_verifications_total", verdict="mismatch") == 1
    assert value(server, "modhaven_requests_total", status="502") == 2
    assert value(server, "modhaven_request_seconds_count", **{"class": "immutable"}) == 2
    assert value(server, "modhaven_ready") == 1
    assert value(server, "modhaven_store_free_bytes") > 0


def test_an_upstream_that_is_left_out_shows(serve: Servers, fake: FakeUpstream) -> None:
    breaker = {"failures": 3, "open_seconds": 1}
    server = serve(
        fake.url, sumdb="off", workers=1, upstream_retries=0, upstream_rounds=1, breaker=breaker
    )
    fake.default = Reply(status=500)
    for number in range(3):
        server.get(f"example.com/m{number}/@v/list")
    assert value(server, "modhaven_upstream_open", upstream=fake.name) == 1
    lines = server.get("readyz?verbose").text.splitlines()
    assert lines[0] == "ready"
    (line,) = (line for line in lines if line.startswith(f"upstream {fake.name}: "))
    assert "left out for 0 s, 500, next probe in" in line
    fake.default = Reply(status=404)
    eventually(lambda: value(server, "modhaven_upstream_open", upstream=fake.name) == 0)
    assert f"upstream {fake.name}: asked" in server.get("readyz?verbose").text


def test_the_store_is_counted(serve: Servers, fake: FakeUpstream) -> None:
    first = serve(fake.url, sumdb="off")
    fake.script(f"{BASE}.zip", Reply(body=ZIP))
    assert first.get(f"{BASE}.zip").content == ZIP
    assert first.stop() == 0
    first.start()
    eventually(lambda: value(first, "modhaven_store_files") == 1)
    assert value(first, "modhaven_store_bytes") == len(ZIP)
    assert value(first, "modhaven_store_unverified_files") == 0


def test_readiness_in_short_is_one_word(serve: Servers, fake: FakeUpstream) -> None:
    server = serve(fake.url, sumdb="off")
    assert server.get("readyz").text == "ready\n"
    (server.folder / "drain").touch()
    draining = server.get("readyz?verbose")
    assert draining.status_code == 503
    assert "draining" in draining.text
    assert "zip requests waiting for upstreams: 0 of 256 at most" in draining.text


def test_what_all_workers_work_on_is_told_in_the_words_of_nginx(
    serve: Servers, fake: FakeUpstream
) -> None:
    server = serve(fake.url, sumdb="off", workers=3)
    go_on = threading.Event()
    fake.script(f"{BASE}.zip", Reply(body=ZIP, after=go_on))
    fake.script(f"{BASE}.mod", Reply(body=MOD, after=go_on))

    def busy() -> int | None:
        return in_flight(server.get("-/status").content)

    assert busy() == 0
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.get, f"{BASE}.{kind}") for kind in ("zip", "mod")]
        # Whichever worker is asked.
        eventually(lambda: busy() == 2)
        go_on.set()
        assert [one.result().status_code for one in asked] == [200, 200]
    assert busy() == 0
