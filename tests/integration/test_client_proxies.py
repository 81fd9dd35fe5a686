"""The GOPROXY of the role client, and why it is so: how go goes on when a connection breaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, FakeUpstream, Reply
from tests.integration.test_app_go import GO

pytestmark = pytest.mark.integration
INFO = b'{"Version":"v1.0.0","Time":"2026-01-01T00:00:00Z"}'


@pytest.mark.parametrize(("again", "status"), [("/", 0), ("", 1)])
def test_go_asks_an_address_again_only_where_it_is_spelt_otherwise(
    tmp_path: Path, fake: FakeUpstream, again: str, status: int
) -> None:
    # As when a VIP moves under a request: one connection ends without an answer.
    fake.released.set()
    fake.script("example.com/moved/@v/v1.0.0.info", Reply(hang=True), Reply(body=INFO))
    fake.script("example.com/moved/@v/v1.0.0.mod", Reply(body=b"module example.com/moved\n"))
    done = subprocess.run(
        [GO, "list", "-m", "example.com/moved@v1.0.0"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "GOPROXY": f"{fake.url}|{fake.url}{again}",
            "GONOSUMDB": "*",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-modcacherw",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    assert ("EOF" in done.stderr) == bool(status)


VIP = {"vip_address": "10.0.0.9"}
OWN = {
    "edge_tls_certificate": "/etc/own.crt",
    "edge_server_names": ["go.example.com", "go2.example.com"],
}
EDGES = "https://10.0.0.1|https://10.0.0.2"


@pytest.mark.parametrize(
    ("given", "goproxy"),
    [
        ({}, EDGES),
        (VIP, f"https://10.0.0.9|https://10.0.0.9/|{EDGES}"),
        (OWN, "https://go.example.com|https://go2.example.com"),
        (VIP | OWN, "https://go.example.com|https://go.example.com/|https://go2.example.com"),
        (
            VIP | {"edge_https_port": 8443},
            "https://10.0.0.9:8443|https://10.0.0.9:8443/|https://10.0.0.1:8443|https://10.0.0.2:8443",
        ),
        (OWN | {"client_scheme": "http"}, EDGES.replace("https", "http")),
        (
            {"client_public_fallback": "https://proxy.golang.org"},
            f"{EDGES}|https://proxy.golang.org",
        ),
    ],
)
def test_the_clients_goproxy(tmp_path: Path, given: dict[str, Any], goproxy: str) -> None:
    edges = {f"edge{number}": {"ansible_host": f"10.0.0.{number}"} for number in (1, 2)}
    groups = {"edges": {"hosts": edges}, "clients": {"hosts": {"client": {}}}}
    (tmp_path / "inventory.json").write_text(json.dumps({"all": {"children": groups}}))
    play = {
        "hosts": "clients",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [
            str(ROOT / "roles" / role / kind / "main.yml")
            for kind in ("defaults", "vars")
            for role in ("modhaven", "client")
        ],
        "tasks": [{"ansible.builtin.debug": {"msg": "GOPROXY={{ client_goproxy }}"}}],
    }
    (tmp_path / "play.json").write_text(json.dumps([play]))
    done = subprocess.run(
        [Path(sys.prefix) / "bin/ansible-playbook", "-i", tmp_path / "inventory.json",
         tmp_path / "play.json", "-e", json.dumps(given)],
        cwd=ROOT, check=False, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"GOPROXY={goproxy}\n" in done.stdout.replace('"', "")
