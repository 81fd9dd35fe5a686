"""A backend that closes a kept connection under a request, as its nginx may in a reload."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests
from tests.conftest import ROOT
from tests.integration.edge_site import EdgeSite, answer_once_and_close_under_the_next

from modhaven.pool import nginx, plan, settings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def test_the_last_backend_of_a_pool_is_asked_once_more(tmp_path: Path, program: Path) -> None:
    site = EdgeSite(tmp_path / "site", program, "edge1", modhaven_mtls=False)
    edge = site.edges["edge1"]
    pool = settings.load(edge.folder / "pool.yml")
    left = plan.make(
        pool.servers,
        {"backend1": "up", "backend2": "down"},
        drained=(),
        max_removed_share=0.7,
        promote=False,
    )
    text = nginx.render(ROOT / "templates/nginx/upstream.conf.j2", left, pool.limits)
    (edge.folder / "nginx/modhaven.pool/upstream.conf").write_text(text)

    edge.forget()
    edge.start()
    # One connection is one worker.
    with (
        socket.create_server(("127.0.0.1", pool.servers[0].port)) as server,
        ThreadPoolExecutor(1) as backend,
        requests.Session() as session,
    ):
        server.settimeout(10)
        ended = backend.submit(answer_once_and_close_under_the_next, server)
        answers = [session.get(f"{edge.url}/a.b/c/@v/list", timeout=30) for _ in range(2)]
        edge.stop()
        ended.result()
    assert [(answer.status_code, answer.text) for answer in answers] == [(200, "ok")] * 2
