"""A backend and an edge on loopback, as deployed: the roles' templates, real nginx, real app."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import requests
from tests.conftest import ROOT, TEST_SUMDB, free_port, wait_for_port

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
GO = Path(sys.prefix) / "bin" / "go"
# What systemd does for modhaven.socket: the listening socket is descriptor 3 of a named process.
_AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "modhaven.cli", "serve", "--config", sys.argv[2]])
"""
_DISK = Path("/var/tmp")  # noqa: S108 - a disk, where /tmp may be memory; the name is taken once
_READY_SECONDS = 30
_STOP_SECONDS = 20


@dataclass(frozen=True)
class Tools:
    """The programs of this Debian release, unpacked and not installed."""

    root: Path

    @classmethod
    def fetch(cls) -> Tools:
        """Fetch the packages, or find them fetched; CalledProcessError after a clear sentence."""
        done = subprocess.run([HERE / "packages.sh"], check=True, text=True, stdout=subprocess.PIPE)
        return cls(Path(done.stdout.splitlines()[-1]))

    @property
    def nginx(self) -> Path:
        return self.root / "usr/sbin/nginx"

    @property
    def wrk(self) -> Path:
        return self.root / "usr/bin/wrk"

    @property
    def libraries(self) -> dict[str, str]:
        """The environment in which wrk finds its own library."""
        folder = next(self.root.glob("usr/lib/*/libluajit-*")).parent
        return {**os.environ, "LD_LIBRARY_PATH": str(folder)}


class Site:
    """One backend behind one edge in ``folder``, with the given chain and checksum databases.

    ``plain`` is the same nginx serving the store's files as plain ones. Below ``/files`` it is the
    mirror that is asked when no chain is given: what lies in the folder ``files``; ``plain_port``
    says where. Below ``/mod`` it passes requests on to the chain's first. Everything listens on
    loopback only.
    """

    def __init__(
        self,
        folder: Path,
        tools: Tools,
        chain: str = "",
        *,
        sumdbs: tuple[str, ...] = (TEST_SUMDB,),
        plain_port: int | None = None,
    ) -> None:
        self.folder = folder
        self.tools = tools
        self.store = folder / "store"
        self.files = folder / "files"
        self.port, self.edge_port, self.edge_tls_port, *other_ports = (
            free_port() for _ in range(6)
        )
        self._status_port, *plain_ports = other_ports
        self.plain_port, self.plain_tls_port = plain_port or plain_ports[0], plain_ports[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.edge = f"http://127.0.0.1:{self.edge_port}"
        self.edge_tls = f"https://127.0.0.1:{self.edge_tls_port}"
        self.plain = f"http://127.0.0.1:{self.plain_port}"
        self.plain_tls = f"https://127.0.0.1:{self.plain_tls_port}"
        self._emptied = 0
        self._app: subprocess.Popen[bytes] | None = None
        self._nginx: subprocess.Popen[bytes] | None = None
        for name in ("etc/nginx/modhaven/backend", "etc/nginx/modhaven/edge/snippets",
                     "etc/nginx/modules-enabled", "etc/modhaven", "var/log/nginx", "run/modhaven",
                     "temp", "cache", "files"):  # fmt: skip
            (folder / name).mkdir(parents=True)
        self._make_store()
        self._render(chain or f"{self.plain}/files", sumdbs)

    def __enter__(self) -> Self:
        self.start_nginx()
        self.start_app()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_app()
        self.stop_nginx()

    def get(self, path: str, **options: Any) -> requests.Response:
        """Ask the backend's nginx; the answer whatever its status."""
        return requests.get(f"{self.url}/{path}", timeout=60, **options)

    def start_nginx(self) -> None:
        self._nginx = subprocess.Popen(
            [self.tools.nginx, "-p", self.folder, "-c", self.folder / "etc/nginx/nginx.conf",
             "-e", "stderr", "-g", "daemon off;"],
        )  # fmt: skip
        wait_for_port(self.port, self._nginx)

    def stop_nginx(self) -> None:
        _stop(self._nginx)

    def start_app(self) -> None:
        """Start ``modhaven serve`` behind a socket as systemd makes it, and wait until ready."""
        path = self.folder / "run/modhaven/app.sock"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(2048)
            path.chmod(0o660)
            _give_to_nginx(path)
            log = self.folder / "app.log"
            with log.open("ab") as out:
                self._app = subprocess.Popen(
                    [sys.executable, "-c", _AS_SYSTEMD, str(listener.fileno()),
                     self.folder / "modhaven.yml"],
                    stdout=out, stderr=out, pass_fds=[listener.fileno()], start_new_session=True,
                    env={**os.environ, "PYTHONPATH": str(ROOT / "app")},
                )  # fmt: skip
        end = time.monotonic() + _READY_SECONDS
        while self._app.poll() is None and time.monotonic() < end:
            if self.get("readyz").ok:
                return
            time.sleep(0.05)
        raise RuntimeError(f"the app is not ready: {log.read_text()[-2000:]}")

    def stop_app(self) -> None:
        _stop(self._app)

    def empty(self) -> Path:
        """Start anew with an empty store, as after the deployment; return where the old one is.

        It is not removed: for minutes ext4 avoids inodes that were freed, and each new file would
        take longer on whichever side is measured next.
        """
        self.stop_app()
        self._emptied += 1
        old = self.folder / f"emptied-{self._emptied}"
        self.store.rename(old)
        self._make_store()
        self.start_app()
        return old

    def app_pids(self) -> list[int]:
        """Return the app's processes: the master, then its workers."""
        return _family(self._app)

    def nginx_pids(self) -> list[int]:
        return _family(self._nginx)

    def _make_store(self) -> None:
        # As the role makes it: what the app writes below, nginx's group may read.
        self.store.mkdir()
        _give_to_nginx(self.store)
        self.store.chmod(0o2750)

    def _render(self, chain: str, sumdbs: tuple[str, ...]) -> None:
        """Let Ansible render the roles' templates, then move the fixed paths below ``folder``."""
        given = {
            "bench_dir": str(self.folder),
            "_modhaven_root": str(ROOT),
            "_modhaven_templates": str(ROOT / "templates"),
            "modhaven_mtls": False,
            "modhaven_backend_port": self.port,
            "modhaven_sumdbs": list(sumdbs),
            "backend_store_path": str(self.store),
            "backend_upstreams": chain,
            "edge_http_port": self.edge_port,
            "edge_https_port": self.edge_tls_port,
            "edge_status_port": self._status_port,
            "edge_plain_http": True,
            # wrk is one client address: the limits are looked at, and never met.
            "edge_limit_requests_per_second": 1_000_000,
            "edge_limit_burst": 1_000_000,
            "edge_cache_path": str(self.folder / "cache"),
            "_edge_certificate": str(self.folder / "pki/hosts/here.crt"),
            "_edge_key": str(self.folder / "pki/hosts/here.key"),
            # Asked of the host's facts otherwise, and of nobody without HTTP/2.
            "_edge_http2_directive": False,
        }
        hosts = {"hosts": {"here": {"ansible_host": "127.0.0.1"}}}
        inventory, variables = self.folder / "inventory.json", self.folder / "variables.json"
        inventory.write_text(json.dumps({"all": {"children": {"backends": hosts, "edges": hosts}}}))
        variables.write_text(json.dumps(given))
        done = subprocess.run(
            [Path(sys.prefix) / "bin/ansible-playbook", "-i", inventory, HERE / "render.yml",
             "-e", f"@{variables}"],
            cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"the templates cannot be rendered:\n{done.stdout}")
        etc = self.folder / "etc/nginx"
        shutil.copy(self.tools.root / "etc/nginx/mime.types", etc)
        rendered: dict[str, str] = json.loads((self.folder / "rendered.json").read_text())
        for name, text in rendered.items():
            (self.folder / name).write_text(self._moved(text))
        # Read last: the log format is one of the backend's.
        (etc / "modhaven/edge/plain.conf").write_text(self._plain_conf(chain))
        shutil.copy(ROOT / "templates/nginx/upstream.conf.j2", self.folder / "etc/modhaven")
        subprocess.run(
            [sys.executable, "-m", "modhaven.cli", "pool", "--root", self.folder, "render"],
            check=True, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT / "app"),
                 "PATH": f"{self.tools.nginx.parent}:{os.environ['PATH']}"},
        )  # fmt: skip

    def _moved(self, text: str) -> str:
        text = re.sub(r"(?<![\w/])/(etc/nginx|var/log/nginx|run)/", rf"{self.folder}/\1/", text)
        text = re.sub(r"\blisten (\d+)(?=[ ;])", r"listen 127.0.0.1:\1", text)
        return text.replace("pid /run/", f"pid {self.folder}/run/")

    def _plain_conf(self, chain: str) -> str:
        temp = "\n".join(
            f"{name}_temp_path {self.folder}/temp/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        mirror = urlsplit(re.split(r"[,|]", chain)[0])
        return f"""{temp}
upstream bench_mirror {{
    server {mirror.netloc};
    keepalive 64;
}}
server {{
    listen 127.0.0.1:{self.plain_port};
    listen 127.0.0.1:{self.plain_tls_port} ssl;
    ssl_certificate {self.folder}/pki/hosts/here.crt;
    ssl_certificate_key {self.folder}/pki/hosts/here.key;
    access_log {self.folder}/var/log/nginx/plain.log modhaven_backend;
    location / {{
        root {self.store}/cache/download;
    }}
    location /files/ {{
        root {self.folder};
    }}
    location /mod/ {{
        proxy_pass http://bench_mirror{mirror.path}/;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    }}
}}
"""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder that nginx's workers can reach, and remove it with all that is in it."""
    for left in _DISK.glob("modhaven-bench.*"):
        # Left by a run that was killed.
        if not Path("/proc", left.name.rpartition(".")[2]).exists():
            shutil.rmtree(left)
    folder = _DISK / f"modhaven-bench.{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _give_to_nginx(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, -1, grp.getgrnam("www-data").gr_gid)


def _family(process: subprocess.Popen[bytes] | None) -> list[int]:
    if process is None:
        raise RuntimeError("the process has not been started")
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [process.pid, *(int(pid) for pid in path.read_text().split())]


def _stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
