"""What edges promise when every backend is gone, and what a big build may ask at once."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import urllib3
from tests.e2e import cluster, origin
from tests.lab import faults, remote, web
from tests.lab.inventory import lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Say

# What a cold build of 500 modules asks for: .info, .mod, .zip and the lookup of each.
BURST = 2000
CONNECTIONS = 32


@pytest.fixture(autouse=True)
def whole_cluster() -> Iterator[None]:
    cluster.wait_until_whole()
    yield
    cluster.wait_until_whole()


def test_what_only_another_edge_holds_is_served_while_every_backend_is_stopped(say: Say) -> None:
    one, two = lab().group("edges")[:2]
    files = [next(file for file in origin.files() if file.path.endswith(kind))
             for kind in (".info", ".mod", ".zip")]  # fmt: skip
    listed = files[0].path.rpartition("/")[0] + "/list"
    cluster.forget()
    for path in (*(file.path for file in files), listed):
        assert web.get(two.address, path).status == 200
    with contextlib.ExitStack() as stack:
        for name in cluster.names("backends"):
            stack.enter_context(faults.service_stopped(name, "nginx.service"))
        slowest = 0.0
        for file in files:
            began = time.monotonic()
            answer = web.get(one.address, file.path)
            slowest = max(slowest, time.monotonic() - began)
            assert (answer.status, origin.sha256(answer.body)) == (200, file.sha256)
            assert answer.headers["x-modhaven-cache"] == "SIBLING"
            assert answer.headers["x-modhaven-sibling"] == two.name
        answer = web.get(one.address, listed)
        assert (answer.status, answer.headers["x-modhaven-sibling"]) == (200, two.name)
        # What nobody holds fails as it did, and soon.
        began = time.monotonic()
        answer = web.get(one.address, "/example.com/nobody-has-it/@v/v1.0.0.mod")
        seconds = time.monotonic() - began
        assert (answer.status, answer.headers["cache-control"]) == (502, "no-store")
        assert seconds < 5
    say(
        f"every backend stopped: {two.name}'s cache answers in {slowest:.2f} s,"
        f" what nobody holds fails in {seconds:.2f} s"
    )


def test_what_a_power_cut_has_cut_short_is_not_served() -> None:
    """nginx names a file without waiting until the disk has it, and later believes the name."""
    edge = lab().group("edges")[0]
    zipped = next(file for file in origin.files() if file.path.endswith(".zip"))
    cluster.forget_edge_caches()
    assert web.get(edge.address, zipped.path).status == 200
    cluster.wait_until_kept(edge.address, zipped.path)
    cut = "grep -rlF 'KEY: {}' /var/cache/modhaven/immutable | xargs truncate --size=-100"
    remote.run(edge.name, "sh", "-c", cut.format(zipped.path))
    faults.power_cycle(edge.name)
    cluster.wait_until_whole()
    answer = web.get(edge.address, zipped.path)
    assert (answer.status, origin.sha256(answer.body)) == (200, zipped.sha256)
    assert answer.headers["x-modhaven-cache"] == "MISS"


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_a_build_of_500_modules_at_full_speed_meets_no_limit(say: Say) -> None:
    edge = lab().group("edges")[0]
    files = origin.files()
    paths = [files[number % len(files)].path for number in range(BURST)]
    # Like go: a kept connection that an edge closes (a reload) is worth one try on a new one.
    pool = urllib3.HTTPSConnectionPool(
        edge.address,
        maxsize=CONNECTIONS,
        block=True,
        timeout=30,
        # A 429 with Retry-After is what must not be: it counts, and is not tried again.
        retries=urllib3.Retry(3, redirect=False, respect_retry_after_header=False),
        ssl_context=web.ANY_CERTIFICATE,
        assert_hostname=False,
    )
    began = time.monotonic()
    with pool, ThreadPoolExecutor(CONNECTIONS) as clients:
        answers = Counter(clients.map(lambda path: pool.request("GET", path).status, paths))
    say(f"{BURST} requests on {CONNECTIONS} connections in {time.monotonic() - began:.1f} s")
    assert answers == {200: BURST}
