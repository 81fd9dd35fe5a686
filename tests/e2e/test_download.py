"""A developer's build through the VIP, with the real go command."""

from __future__ import annotations

import pytest
from tests.e2e import cluster, golang, origin
from tests.lab import faults
from tests.lab.web import get

MODULE = "rsc.io/quote"
VERSION = "v1.5.2"


def quote_files() -> list[origin.File]:
    return [file for file in origin.files() if file.path.startswith(f"/{MODULE}/@v/{VERSION}.")]


def test_a_program_is_downloaded_built_and_runs() -> None:
    cluster.forget(origin.files())
    run = golang.build(cluster.client())
    assert run.ok, run.output
    assert "Hello, world." in run.output


def test_the_second_download_comes_from_the_edge_and_no_mirror_is_asked() -> None:
    cluster.forget(quote_files())
    first = golang.download(cluster.client(), f"{MODULE}@{VERSION}")
    assert first.ok, first.output
    assert f"{cluster.vip()}/{MODULE}/@v/{VERSION}.zip" in first.output
    faults.forget_requests()

    second = golang.download(cluster.client(), f"{MODULE}@{VERSION}")

    assert second.ok, second.output
    for file in quote_files():
        assert get(cluster.vip(), file.path).headers["x-modhaven-cache"] == "HIT"
    seen = [
        request
        for name in ("goproxy.cn", "goproxy.io", "proxy.golang.org")
        for request in faults.requests_seen(name)
    ]
    assert not [request for request in seen if MODULE in request["path"]]


def test_every_file_of_every_mirror_module_arrives_with_the_mirrors_bytes() -> None:
    wrong = {}
    for file in origin.files():
        answer = get(cluster.vip(), file.path)
        if answer.status != 200 or origin.sha256(answer.body) != file.sha256:
            wrong[file.path] = answer.status
    assert not wrong


@pytest.mark.parametrize("path", origin.CONTRADICTED)
def test_a_zip_that_the_checksum_database_contradicts_is_never_served(path: str) -> None:
    answer = get(cluster.vip(), path)
    assert answer.status == 502
    assert "wrong bytes: hash is h1:" in answer.body.decode()


def test_a_module_that_no_mirror_has_is_not_found_and_says_who_was_asked() -> None:
    answer = get(cluster.vip(), "/example.com/modhaven-has-no-such/@v/v1.0.0.info")
    assert answer.status == 404
    lines = answer.body.decode().splitlines()
    assert lines[0].startswith("not found: ")
    assert len(lines) <= 8
    for mirror in ("goproxy.cn", "goproxy.io", "proxy.golang.org"):
        assert any(line.startswith(f"{mirror}: ") for line in lines), lines
