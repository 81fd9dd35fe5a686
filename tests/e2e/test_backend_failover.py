"""What is promised when backends die: no request fails."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster, origin
from tests.lab import faults, remote
from tests.lab.load_client import load_from

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from tests.e2e.conftest import Say

RATE = 30
FILES = 540


@pytest.fixture(autouse=True)
def whole_cluster() -> Iterator[None]:
    cluster.wait_until_whole()
    yield
    cluster.wait_until_whole()


def deaths() -> dict[str, AbstractContextManager[None]]:
    victim = cluster.primaries()[0].name
    return {
        "the app": faults.killed(victim, "modhaven.service"),
        "its nginx": faults.killed(victim, "nginx.service"),
        "its host": faults.host_stopped(victim),
    }


@pytest.mark.parametrize("what", ["the app", "its nginx", "its host"])
def test_no_request_fails_when_a_backend_loses(what: str, say: Say) -> None:
    # Every file is asked for once and is in no cache: each request needs a backend.
    files = origin.files()[:FILES]
    cluster.forget(files)
    with load_from(cluster.client(), cluster.load_plan(files, rate=RATE)) as load:
        remote.wait_until("the load to arrive", lambda: asked(files[RATE]), timeout=20)
        with deaths()[what]:
            result = load.result()

    say(f"backend loses {what}: {cluster.figures(result)}")
    assert result["sent"] == FILES
    assert result["failed"] == 0, result["failures"]
    assert len(result["backends"]) > 1, "the load met only one backend: nothing was proven"


def asked(file: origin.File) -> bool:
    """Whether a backend has published the file, which says how far the load has come."""
    path = f"/var/lib/modhaven/store/cache/download{file.path}"
    return any(
        remote.run(name, "test", "-e", path, check=False).returncode == 0
        for name in cluster.names("backends")
    )


def test_the_backup_serves_while_every_primary_is_stopped_and_rests_afterwards(say: Say) -> None:
    backup = {host.name for host in cluster.backups()}
    files = origin.files()[:FILES]
    cluster.forget(files)
    with load_from(cluster.client(), cluster.load_plan(files, rate=RATE)) as load:
        remote.wait_until("the load to arrive", lambda: asked(files[RATE]), timeout=20)
        with contextlib.ExitStack() as stack:
            for host in cluster.primaries():
                stack.enter_context(faults.service_stopped(host.name, "nginx.service"))
            cluster.wait_until_ready(backup, timeout=20)
            result = load.result()

    say(f"every primary stopped: {cluster.figures(result)}")
    assert result["failed"] == 0, result["failures"]
    assert backup & set(result["backends"])
    # The fixture waits until the backup gets nothing any more.


def test_a_backend_whose_app_is_down_says_503_so_that_another_is_asked() -> None:
    backend = cluster.backups()[0]
    file = next(file for file in origin.files() if file.path.endswith(".mod"))
    cluster.forget([file])
    with faults.service_stopped(backend.name, "modhaven.socket", "modhaven.service"):
        for path in (file.path, "/rsc.io/quote/@v/list"):
            status = remote.run(
                cluster.names("edges")[0],
                *("curl", "--silent", "--insecure", "--output", "/dev/null"),
                *("--cert", "/etc/modhaven/pki/host.crt", "--key", "/etc/modhaven/pki/host.key"),
                *("--write-out", "%{http_code}", f"https://{backend.address}:8443{path}"),
            ).stdout
            assert (path, status) == (path, "503")


# Forty requests at once at one backend, with the edge's own certificate; prints each one's status.
CROWD = """
for _ in $(seq 40); do
    curl --silent --insecure --cert /etc/modhaven/pki/host.crt --key /etc/modhaven/pki/host.key \\
        --output /dev/null --write-out '%{http_code}\\n' --max-time 60 "$0" &
done
wait
"""


def test_nobody_fails_when_the_processes_that_fetch_are_killed() -> None:
    backend = cluster.primaries()[0]
    file = next(file for file in origin.files() if file.path.endswith(".zip"))
    cluster.forget([file])
    faults.forget_requests()
    url = f"https://{backend.address}:8443{file.path}"
    # Slow enough to be met in mid-fetch, quick enough for the chain's patience.
    with faults.mirror_fault("goproxy.cn", "delay", seconds=1, match=r"\.zip$"):
        crowd = remote.start(cluster.names("edges")[0], "sh", "-c", CROWD, url)
        try:
            remote.wait_until(
                "the fetch to begin",
                lambda: any(
                    request["path"] == file.path for request in faults.requests_seen("goproxy.cn")
                ),
                20,
            )
            workers = remote.run(
                backend.name, "sh", "-c",
                'pgrep -P "$(systemctl show --property=MainPID --value modhaven.service)"',
            ).stdout.split()  # fmt: skip
            remote.run(backend.name, "kill", "-KILL", *workers)
            statuses = crowd.communicate(timeout=90)[0].split()
        finally:
            if crowd.poll() is None:
                crowd.kill()
                crowd.communicate()
    assert statuses == ["200"] * 40
