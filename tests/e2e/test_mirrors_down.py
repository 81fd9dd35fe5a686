"""When public mirrors fail, the next one serves; with none left, what is known is served."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster, golang, origin
from tests.lab import faults, remote
from tests.lab.inventory import lab
from tests.lab.web import get

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Say

PRIMARY = "goproxy.cn"
MIRRORS = (PRIMARY, "goproxy.io", "proxy.golang.org")
MODULE = "rsc.io/quote@v1.5.2"
# What golang.build downloads.
BUILT = (
    ("rsc.io/quote", "v1.5.2"),
    ("rsc.io/sampler", "v1.3.0"),
    ("golang.org/x/text", "v0.0.0-20170915032832-14c0d48ead0c"),
)
DATABASE = "localhost.localdev/sumdb"
STORE = "/var/lib/modhaven/store"


@contextlib.contextmanager
def primary_fails(how: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if how == "its name leads astray":
            # An address of the network that nobody has.
            for name in cluster.names("backends"):
                stack.enter_context(faults.wrong_dns(name, PRIMARY, "10.0.3.250"))
        else:
            kind = {"it refuses": "down", "it is a black hole": "blackhole"}[how]
            stack.enter_context(faults.mirror_fault(PRIMARY, kind))
        yield


@pytest.mark.parametrize("how", ["it refuses", "it is a black hole", "its name leads astray"])
def test_the_next_mirror_serves_when_the_first_fails_because(how: str, say: Say) -> None:
    files = origin.files()
    cluster.forget(files)
    for name in cluster.names("backends"):
        # An earlier fault may have left the mirror out; new processes know nothing of it.
        remote.run(name, "systemctl", "restart", "modhaven.service")
    with primary_fails(how):
        begun = time.monotonic()
        answer = get(cluster.vip(), files[0].path)
        first = time.monotonic() - begun
        assert answer.status == 200, answer.body
        assert answer.headers["x-modhaven-source"] in MIRRORS[1:]
        run = golang.build(cluster.client())
    say(
        f"{PRIMARY} fails, {how}: first answer after {first:.2f} s,"
        f" a whole cold build in {run.seconds:.2f} s"
    )
    assert run.ok, run.output
    assert origin.sha256(answer.body) == files[0].sha256


@contextlib.contextmanager
def every_mirror_down() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in (*MIRRORS, "localhost.localdev"):
            stack.enter_context(faults.mirror_fault(name, "down"))
        yield


def test_what_was_downloaded_before_is_served_by_either_edge_with_every_mirror_down() -> None:
    assert golang.download(cluster.client(), MODULE).ok
    for file in known_files():
        assert get(cluster.vip(), file.path).status == 200
    cluster.forget_edge_caches()
    with every_mirror_down():
        run = golang.download(cluster.client(), MODULE)
        assert run.ok, run.output
        for edge in lab().group("edges"):
            for file in known_files():
                answer = get(edge.address, file.path)
                assert answer.status == 200, (edge.name, file.path, answer.body)
                assert origin.sha256(answer.body) == file.sha256


@pytest.mark.parametrize("holder", cluster.names("backends"))
def test_a_file_that_one_backend_alone_has_is_served_with_every_mirror_down(holder: str) -> None:
    give_only_to(holder)
    with every_mirror_down():
        for edge in lab().group("edges"):
            for file in known_files():
                answer = get(edge.address, file.path)
                assert answer.status == 200, (edge.name, file.path, answer.body)
                assert origin.sha256(answer.body) == file.sha256
            cluster.forget_edge_caches()


@pytest.mark.parametrize("holder", cluster.names("backends")[-1:])
def test_what_a_build_needs_may_be_known_to_one_backend_alone_with_every_mirror_down(
    holder: str,
) -> None:
    assert golang.build(cluster.client()).ok
    for name in set(cluster.names("backends")) - {holder}:
        remote.run(name, "systemctl", "stop", "modhaven.service")
    for module, version in BUILT:
        base = f"/{module}/@v"
        for path in ("list", f"{version}.info", f"{version}.mod", f"{version}.zip"):
            ask_app(holder, f"{base}/{path}")
        ask_app(holder, f"/{module}/@latest")
        ask_app(holder, f"/sumdb/{DATABASE}/lookup/{module}@{version}")
    for name in set(cluster.names("backends")) - {holder}:
        for kept in ("cache", "mutable"):
            remote.run(name, "rm", "-rf", f"{STORE}/{kept}")
        remote.run(name, "systemctl", "start", "modhaven.service")
    cluster.wait_until_whole()
    cluster.forget_edge_caches()
    with every_mirror_down():
        run = golang.build(cluster.client())
        assert run.ok, run.output
        for module, _version in BUILT:
            for end in ("@v/list", "@latest"):
                for edge in lab().group("edges"):
                    answer = get(edge.address, f"/{module}/{end}")
                    assert answer.status == 200, (edge.name, module, end, answer.body)
                    assert b"v" in answer.body


def known_files() -> list[origin.File]:
    return [file for file in origin.files() if file.path.startswith("/rsc.io/quote/@v/v1.5")]


def give_to(holder: str) -> None:
    """See to it that `holder` has the known files in its store."""
    for file in known_files():
        ask_app(holder, file.path)


def ask_app(backend: str, path: str) -> None:
    """Ask the app of one backend, past every nginx."""
    remote.run(
        *(backend, "curl", "--silent", "--fail", "--output", "/dev/null"),
        *("--unix-socket", "/run/modhaven/app.sock", f"http://app{path}"),
    )


def give_only_to(holder: str) -> None:
    """Leave the known files in the store of `holder` alone, and in no edge's cache."""
    give_to(holder)
    paths = "".join(f"{STORE}/cache/download{f.path}\n" for f in known_files())
    for name in set(cluster.names("backends")) - {holder}:
        remote.run(name, "xargs", "rm", "-f", stdin=paths)
    cluster.forget_edge_caches()


def test_lists_are_served_and_labelled_stale_with_every_mirror_down() -> None:
    for path in ("/rsc.io/quote/@v/list", "/rsc.io/quote/@latest"):
        assert get(cluster.vip(), path).status == 200
    for name in cluster.names("backends"):
        give_to(name)
        # What was kept of these answers is gone: the store itself must say what it holds.
        remote.run(name, "rm", "-rf", f"{STORE}/mutable/rsc.io")
    cluster.forget_edge_caches()
    with every_mirror_down():
        versions = get(cluster.vip(), "/rsc.io/quote/@v/list")
        latest = get(cluster.vip(), "/rsc.io/quote/@latest")
    assert b"v1.5.2" in versions.body.splitlines()
    for answer in (versions, latest):
        assert answer.status == 200, answer.body
        assert int(answer.headers["x-modhaven-stale"]) >= 0
