"""An edge on loopback as it is deployed: nginx, ``modhaven pool run``, and backends to ask."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import yaml
from tests import nginx
from tests.conftest import ROOT, free_port, wait_for_port

from modhaven.pool import status
from modhaven.pool.drains import Drains
from modhaven.pool.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from modhaven.pool.status import PoolStatus, ServerStatus

_HERE = ROOT / "tests/integration"
_STOP_SECONDS = 10
# As nginx_tree makes it: one entry, a link into a release, relative includes.
_ENTRY = "include modhaven/main/*.conf;\n"
_MAIN = """\
pid {root}/run/nginx.pid;
error_log {root}/error.log warn;
worker_processes 2;
{user}
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {root}/temp/a; proxy_temp_path {root}/temp/b;
    fastcgi_temp_path {root}/temp/c; uwsgi_temp_path {root}/temp/d; scgi_temp_path {root}/temp/e;
    include modhaven/edge/*.conf;
}}
"""
_SERVER = """\
server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
        proxy_pass {scheme}://modhaven_pool;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_connect_timeout 500ms;
        proxy_next_upstream error timeout http_503;
        {tls}
    }}
}}
server {{
    listen 127.0.0.1:{status_port};
    location / {{ stub_status; }}
}}
"""
_TLS = """\
proxy_ssl_certificate {pki}/host.crt;
        proxy_ssl_certificate_key {pki}/host.key;
        proxy_ssl_trusted_certificate {pki}/ca.crt;
        proxy_ssl_verify on;
        proxy_ssl_name backends.internal;
        proxy_ssl_server_name on;
"""


class Backend:
    """A process that can be stopped, killed and said not to be ready."""

    def __init__(self, folder: Path, pki: Path | None) -> None:
        folder.mkdir()
        self.name = folder.name
        self.address = "127.0.0.1"
        self.port = free_port()
        self._unready = folder / "unready"
        self._busy = folder / "busy"
        tls = [] if pki is None else [str(pki)]
        script = _HERE / "pool_backend.py"
        self._command = (sys.executable, str(script), str(folder), str(self.port), *tls)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command)
        wait_for_port(self.port, self.process)

    def ready(self, *, ready: bool, reason: str = "not now\n") -> None:
        if ready:
            self._unready.unlink(missing_ok=True)
        else:
            self._unready.write_text(reason)

    def busy(self, *, busy: bool) -> None:
        """Let it refuse /work with 503, or take it again; it is ready all the while."""
        if busy:
            self._busy.touch()
        else:
            self._busy.unlink()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def entry(self) -> dict[str, Any]:
        return {"name": self.name, "address": self.address, "port": self.port}


class Load:
    """Requests through the edge, each on a connection of its own, until it is left."""

    def __init__(self, edge: Edge, path: str = "/x", threads: int = 4, pause: float = 0.01) -> None:
        self._url = f"http://127.0.0.1:{edge.port}{path}"
        self._pause = pause
        self._done = threading.Event()
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._pause):
            try:
                with urllib.request.urlopen(self._url, timeout=20) as answer:  # noqa: S310 - ours
                    self.answers[answer.read().decode().strip()] += 1
            except (OSError, urllib.error.URLError) as error:
                self.failures.append(repr(error))


class Edge:
    """Below ``root`` as below / of an edge."""

    def __init__(self, root: Path, program: Path, pki: Path | None = None) -> None:
        self.root, self._pki = root, pki
        self.paths = Paths.below(root)
        self.port, self._status_port = free_port(), free_port()
        self.backends: dict[str, Backend] = {}
        self._nginx: subprocess.Popen[bytes] | None = None
        self.daemon: subprocess.Popen[bytes] | None = None
        release = self.paths.nginx / "modhaven.releases/1/modhaven"
        for folder in (release / "main", release / "edge", root / "temp", root / "run",
                       root / "etc/modhaven", root / "backends"):  # fmt: skip
            folder.mkdir(parents=True)
        (self.paths.nginx / "nginx.conf").write_text(_ENTRY)
        user = "user root;" if os.geteuid() == 0 else ""
        (release / "main/main.conf").write_text(_MAIN.format(root=root, user=user))
        templates = ROOT / "templates/nginx"
        shutil.copy(templates / "edge/upstream.conf.j2", release / "edge/upstream.conf")
        shutil.copy(templates / "upstream.conf.j2", self.paths.template)
        self.server_conf = release / "edge/server.conf"
        self.server_conf.write_text(
            _SERVER.format(
                port=self.port, status_port=self._status_port,
                scheme="http" if pki is None else "https",
                tls="" if pki is None else _TLS.format(pki=pki),
            )
        )  # fmt: skip
        self.command = nginx.command(root / "bin", program, self.paths.nginx)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_daemon()
        self.stop_nginx()
        for backend in self.backends.values():
            backend.signal(signal.SIGCONT)
            backend.stop()

    @property
    def _environment(self) -> dict[str, str]:
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "app")}

    def backend(self, name: str) -> Backend:
        self.backends[name] = Backend(self.root / "backends" / name, self._pki)
        return self.backends[name]

    def write_pool(self, *entries: dict[str, Any], **more: Any) -> None:
        """Write pool.yml as Ansible does, in one step; without entries all backends are in it."""
        pool = {"servers": list(entries) or [one.entry for one in self.backends.values()], **more}
        if self._pki is not None:
            pool["tls"] = {
                "ca_file": f"{self._pki}/ca.crt", "certificate_file": f"{self._pki}/host.crt",
                "key_file": f"{self._pki}/host.key", "name": "backends.internal",
            }  # fmt: skip
        fresh = self.paths.config.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(pool))
        fresh.replace(self.paths.config)

    def pool(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``modhaven pool`` as a person does."""
        return subprocess.run(
            [sys.executable, "-m", "modhaven.cli", "pool", "--root", self.root, *words],
            check=False, capture_output=True, text=True, env=self._environment, timeout=120,
        )  # fmt: skip

    def start(self, *names: str, **more: Any) -> None:
        """Start backends, give nginx a pool of all of them, start nginx and the daemon."""
        for name in names:
            self.backend(name)
        self.start_with(**more)

    def start_with(self, *entries: dict[str, Any], **more: Any) -> None:
        """Start with backends that run already, and these entries of pool.yml."""
        self.write_pool(*entries, **more)
        done = self.pool("render")
        assert done.returncode == 0, done.stderr
        (self.paths.nginx / "modhaven").symlink_to("modhaven.releases/1/modhaven")
        self.start_nginx()
        self.start_daemon()
        self.wait("a settled pool", lambda told: told.published and not told.error)

    def start_nginx(self) -> None:
        entry = self.paths.nginx / "nginx.conf"
        self._nginx = subprocess.Popen([self.command, "-c", entry, "-g", "daemon off;"])
        wait_for_port(self.port, self._nginx)

    def stop_nginx(self) -> None:
        _stop(self._nginx)

    def quit_nginx(self) -> subprocess.Popen[bytes]:
        """Tell nginx to end when it has answered all, as systemd does; return its process."""
        assert self._nginx is not None
        self._nginx.send_signal(signal.SIGQUIT)
        return self._nginx

    def start_daemon(self) -> None:
        mine = self.begin_daemon().pid
        self.wait("the daemon's status", lambda told: told.pid == mine)

    def begin_daemon(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start the daemon and do not wait for it."""
        self.daemon_log = self.root / "daemon.log"
        with self.daemon_log.open("ab") as log:
            self.daemon = subprocess.Popen(
                [sys.executable, "-m", "modhaven.cli", "pool", "--root", self.root, "run",
                 "--nginx-status", str(self._status_port)],
                env=self._environment | environment, stdout=log, stderr=log,
            )  # fmt: skip
        return self.daemon

    def stop_daemon(self) -> None:
        _stop(self.daemon)

    def told(self) -> PoolStatus | None:
        return status.read(self.paths.status)

    def server(self, name: str) -> ServerStatus:
        told = self.told()
        assert told is not None
        found = told.server(name)
        assert found is not None
        return found

    def wait(
        self, what: str, reached: Callable[[PoolStatus], bool], seconds: float = 20
    ) -> PoolStatus:
        """Wait until the status is so; return it."""
        end = time.monotonic() + seconds
        while True:
            told = self.told()
            if told is not None and reached(told):
                return told
            if time.monotonic() > end:
                log = self.daemon_log.read_text()[-3000:]
                shown = json.dumps(told, default=str, indent=1)
                raise AssertionError(f"no {what} after {seconds} s: {shown}\n{log}")
            time.sleep(0.01)

    def wait_state(self, name: str, state: str, seconds: float = 20) -> float:
        """Wait until nginx has a pool in which a backend is so; return the seconds it took."""
        begun = time.monotonic()

        def reached(told: PoolStatus) -> bool:
            server = told.server(name)
            return server is not None and server.state == state and told.published

        self.wait(f"{name} {state}", reached, seconds)
        return time.monotonic() - begun

    def listed(self) -> list[str]:
        """Return the server lines of the pool that nginx includes."""
        text = (self.paths.nginx / "modhaven.pool/upstream.conf").read_text()
        return [line.strip() for line in text.splitlines() if line.startswith("    server ")]

    def workers(self) -> set[str]:
        assert self._nginx is not None
        main = self._nginx.pid
        with open(f"/proc/{main}/task/{main}/children") as children:  # noqa: PTH123 - no file
            return set(children.read().split())

    def answers(self, requests: int = 30, path: str = "/x") -> Counter[str]:
        """Ask the edge; return who answered how often."""
        found: Counter[str] = Counter()
        for _ in range(requests):
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}{path}", timeout=20
            ) as answer:
                found[answer.read().decode().strip()] += 1
        return found


def _stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def work_on_b1(edge: Edge, seconds: float) -> Iterator[Future[bytes]]:
    """Have b1 work on a request for so long; b2 is ready beside it."""
    edge.start("b1", "b2")
    Drains(edge.paths.drained).add("b2", "x")
    edge.wait_state("b2", "drained")
    url = f"http://127.0.0.1:{edge.port}/slow/{seconds:g}"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lambda: urllib.request.urlopen(url, timeout=40).read())
        edge.wait("b1 at work", lambda told: told.servers[0].in_flight == 1)
        assert edge.pool("undrain", "b2").returncode == 0
        yield slow
