"""Edges on loopback from the roles' own templates: real nginx, the deployment's certificates.

What an edge asks are scripted backends (tests.conftest.FakeUpstream) over mutual TLS.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import requests
from tests.conftest import ROOT, FakeUpstream, Reply, free_port, wait_for_port
from tests.unit.ansible_plugin import load

from modhaven.pool import nginx, plan, settings

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

_STOP_SECONDS = 10
_LOG_SECONDS = 5
YEAR = "public, max-age=31536000, immutable"


def answer_once_and_close_under_the_next(server: socket.socket) -> None:
    """Serve two connections as nginx does in a reload: "ok" once, the next request cut off."""
    for _ in range(2):
        with server.accept()[0] as made:
            made.recv(1 << 16)
            made.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            made.recv(1 << 16)


class Edge:
    """One edge below ``folder``; ``port`` is its plain port, ``tls_port`` the other."""

    def __init__(
        self, name: str, folder: Path, variables: Mapping[str, Any], program: Path
    ) -> None:
        self.name, self.folder = name, folder
        self.port: int = variables["edge_http_port"]
        self.tls_port: int = variables["edge_https_port"]
        self.sibling_port: int = variables["edge_sibling_port"]
        self._status_port: int = variables["edge_status_port"]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._program = program

    def prepare(self, rendered: Mapping[str, Any], pki: Path) -> None:
        """Write what was rendered, with the fixed paths moved below the folder."""
        for name in ("run", "temp", "pki", "nginx/modules-enabled", "nginx/modhaven.pool",
                     "nginx/modhaven/edge/snippets"):  # fmt: skip
            (self.folder / name).mkdir(parents=True)
        (self.folder / "nginx/nginx.conf").write_text(rendered["main"])
        for name, text in rendered["edge"].items():
            (self.folder / "nginx/modhaven/edge" / name).write_text(text)
        (self.folder / "pool.yml").write_text(rendered["pool"])
        shutil.copy(pki / "ca.crt", self.folder / "pki")
        for kind in ("crt", "key"):
            shutil.copy(pki / f"hosts/{self.name}.{kind}", self.folder / f"pki/host.{kind}")
        for path in (self.folder / "nginx").rglob("*.conf"):
            text = path.read_text()
            for old, new in (
                (r"(?<![\w/])/etc/nginx/", f"{self.folder}/nginx/"),
                (r"(?<![\w/])/var/log/nginx/", f"{self.folder}/logs/"),
                (r"(?<![\w/])/run/", f"{self.folder}/run/"),
                (r"(?<![\w/])/etc/modhaven/pki/", f"{self.folder}/pki/"),
                (r"(?<![\w/])/var/cache/modhaven/", f"{self.folder}/cache/"),
                (r"\blisten (\d+)(?=[ ;])", r"listen 127.0.0.1:\1"),
                (r"(?m)^user .*$", "user root;" if os.geteuid() == 0 else ""),
            ):
                text = re.sub(old, new, text)
            path.write_text(text)
        temp = "".join(
            f"{name}_temp_path {self.folder}/temp/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx/modhaven/edge/temp.conf").write_text(temp)
        shutil.copy(self._program.parents[2] / "etc/nginx/mime.types", self.folder / "nginx")
        self._write_pool()

    def _write_pool(self) -> None:
        """Give nginx the pool of pool.yml with every backend in it, as before the first probe."""
        pool = settings.load(self.folder / "pool.yml")
        whole = plan.make(
            pool.servers,
            {one.name: "up" for one in pool.servers},
            drained=(),
            max_removed_share=pool.max_removed_share,
            promote=False,
        )
        text = nginx.render(ROOT / "templates/nginx/upstream.conf.j2", whole, pool.limits)
        (self.folder / "nginx/modhaven.pool/upstream.conf").write_text(text)

    def forget(self) -> None:
        """Start anew, with an empty cache and empty logs."""
        for name in ("logs", "cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-e", "stderr", "-p", self.folder,
             "-c", self.folder / "nginx/nginx.conf", "-g", "daemon off;"],
        )  # fmt: skip
        wait_for_port(self.port, self._process)

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.ask("GET", path, **options)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, f"{self.url}{path}", timeout=30, **options)

    def log(self, name: str = "modhaven-edge", wanted: int = 0) -> list[dict[str, Any]]:
        """Return the lines of an access log once there are ``wanted``, in the order of the asking.

        nginx writes an edge's late, and each worker for itself.
        """
        path = self.folder / f"logs/{name}.log"
        end = time.monotonic() + _LOG_SECONDS
        # Lines that have their end: nginx may be in the middle of writing the last one.
        while len(lines := path.read_text().split("\n")[:-1]) < wanted and time.monotonic() < end:
            time.sleep(0.01)
        records = [json.loads(line) for line in lines]
        return sorted(records, key=_asked_at) if name == "modhaven-edge" else records

    def accepted(self) -> int:
        """Return how many connections have been made to it; this question's own is one of them."""
        told = requests.get(f"http://127.0.0.1:{self._status_port}", timeout=30).text
        return int(told.splitlines()[2].split()[0])

    def cached(self) -> int:
        """Return how many answers the cache holds."""
        return sum(path.is_file() for path in (self.folder / "cache").rglob("*"))

    def errors(self) -> list[str]:
        """Return the lines of the error log about requests."""
        lines = (self.folder / "logs/error.log").read_text().splitlines()
        return [line for line in lines if "setrlimit" not in line]


class EdgeSite:
    """Edges with the names given, before two backends; ``variables`` are inventory variables."""

    def __init__(
        self,
        folder: Path,
        program: Path,
        *names: str,
        hosts: Mapping[str, Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> None:
        self.folder = folder
        ports = ("edge_http_port", "edge_https_port", "edge_sibling_port", "edge_status_port")
        edges: dict[str, dict[str, Any]] = {
            name: {
                "ansible_host": "127.0.0.1",
                **{port: free_port() for port in ports},
                **(hosts or {}).get(name, {}),
            }
            for name in names
        }
        self._mtls = variables.get("modhaven_mtls", True)
        self._backend_ports = {name: free_port() for name in ("backend1", "backend2")}
        backends = {
            name: {"ansible_host": "127.0.0.1", "modhaven_backend_port": port}
            for name, port in self._backend_ports.items()
        }
        self.pki = folder / "pki"
        rendered = self._render(program, edges, backends, variables)
        self._issue(rendered)
        self.edges = {
            name: Edge(name, folder / name, given, program) for name, given in edges.items()
        }
        for edge in self.edges.values():
            edge.prepare(rendered[edge.name], self.pki)
        self.backends: dict[str, FakeUpstream] = {}

    def __enter__(self) -> Self:
        self.start_backends()
        for edge in self.edges.values():
            edge.forget()
            edge.start()
        return self

    def __exit__(self, *_: object) -> None:
        for edge in self.edges.values():
            edge.stop()
        self.stop_backends()

    def start_backends(self) -> None:
        for name, port in self._backend_ports.items():
            self.backends[name] = FakeUpstream(self._tls(name) if self._mtls else None, port)

    def stop_backends(self) -> None:
        while self.backends:
            self.backends.popitem()[1].close()

    def publish(self, path: str, body: bytes, control: str = YEAR, **headers: str) -> None:
        """Let every backend answer ``path`` so."""
        marks = {"Cache-Control": control, "X-Modhaven-Source": "store", **headers}
        for name, backend in self.backends.items():
            given = {"X-Modhaven-Backend": name, "X-Request-Id": "of-the-first", **marks}
            backend.script(path.lstrip("/"), Reply(body=body, headers=given))

    def asked(self) -> int:
        """Return how many requests the backends have got."""
        return sum(backend.counts.total() for backend in self.backends.values())

    def _tls(self, name: str) -> ssl.SSLContext:
        pki = self.pki
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / f"hosts/{name}.crt", pki / f"hosts/{name}.key")
        context.load_verify_locations(pki / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _issue(self, rendered: Mapping[str, Any]) -> None:
        (self.pki / "hosts").mkdir(parents=True)
        authority = load("modules/host_certificates.py").Authority(self.pki)
        authority.create("test", 30)
        for name, given in rendered.items():
            authority.issue(name, given["names"], 30)

    def _render(
        self,
        program: Path,
        edges: dict[str, Any],
        backends: dict[str, Any],
        variables: Mapping[str, Any],
    ) -> dict[str, Any]:
        given = {
            "site_dir": str(self.folder),
            "modhaven_state_dir": str(self.folder),
            "_modhaven_templates": str(ROOT / "templates"),
            "_edge_http2_directive": _version(program) >= (1, 25, 1),
        }
        inventory = {
            "all": {
                "vars": {"edge_plain_http": True, **variables},
                "children": {"edges": {"hosts": edges}, "backends": {"hosts": backends}},
            }
        }
        self.folder.mkdir(parents=True)
        (self.folder / "inventory.json").write_text(json.dumps(inventory))
        done = subprocess.run(
            [Path(sys.prefix) / "bin/ansible-playbook", "-i", self.folder / "inventory.json",
             ROOT / "tests/integration/render_edges.yml", "--tags", "render",
             "-e", json.dumps(given)],
            cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"the edges cannot be rendered:\n{done.stdout}")
        return {
            name: json.loads((self.folder / f"{name}.json").read_text())
            for name in (*edges, *backends)
        }


def _version(program: Path) -> tuple[int, ...]:
    told = subprocess.run([program, "-v"], check=True, text=True, stderr=subprocess.PIPE).stderr
    return tuple(int(part) for part in re.findall(r"\d+", told.partition("/")[2])[:3])


def _asked_at(record: Mapping[str, Any]) -> tuple[float, int, int]:
    """Return what a request's id says: its moment, its connection, its number there."""
    moment, connection, number = record["request_id"].split("-")[-3:]
    return float(moment), int(connection), int(number)
