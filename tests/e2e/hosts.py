"""What the tests of the hosts share: a way in, what Ansible means each host to be, and raw HTTP.

Expected values are never written down here or in a test: `effective` has Ansible resolve every
option of every role (inventory over the role's default) for a host, as site.yml would.
"""

from __future__ import annotations

import atexit
import functools
import http.client
import json
import os
import re
import shlex
import ssl
import subprocess
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import testinfra
import yaml
from testinfra.host import Host
from tests.lab import remote
from tests.lab.inventory import ROOT, lab, tool

if TYPE_CHECKING:
    from testinfra.host import Host

DEPLOYED = ("edges", "backends", "clients")
PKI = "/etc/modhaven/pki"
# One name in every backend's certificate: edges verify the whole pool by it (DESIGN, section 1).
BACKEND_NAME = "backend.modhaven.internal"
HTTP_SECONDS = 20.0
EDGE_LOG = "/var/log/nginx/modhaven-edge.log"
LOG_SECONDS = 5.0
_LOG_PAUSE_SECONDS = 0.2
# One SSH connection a host carries all its commands; its other end may have been killed meanwhile.
_SOCKETS = tempfile.TemporaryDirectory(prefix="modhaven-e2e-")
atexit.register(_SOCKETS.cleanup)
_NOTICE_DEATH = "-o ServerAliveInterval=5 -o ServerAliveCountMax=2"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer; header names are case-insensitive."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def names(group: str) -> list[str]:
    """Give the hosts of a group in the inventory's order, to parametrize by."""
    return [host.name for host in lab().group(group)]


@functools.cache
def _resolved() -> dict[str, dict[str, Any]]:
    defaults = sorted((ROOT / "roles").glob("*/defaults/main.yml"))
    options = [name for path in defaults for name in yaml.safe_load(path.read_text()) or {}]
    roles = [path.parts[-3] for path in defaults]
    resolve = f"lookup('ansible.builtin.vars', *{options}, wantlist=True)"
    # An imported role shows its defaults to the whole play; the tag keeps its tasks from running.
    play = {
        "hosts": ":".join(DEPLOYED),
        "gather_facts": False,
        "tasks": [
            *({"import_role": {"name": role}, "when": False} for role in roles),
            {
                "debug": {"msg": f"{{{{ dict({options} | zip({resolve})) }}}}"},
                "tags": ["effective"],
            },
        ],
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as playbook:
        json.dump([play], playbook)
        playbook.flush()
        done = subprocess.run(
            [tool("ansible-playbook"), "-i", lab().path, "--tags=effective", playbook.name],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                "ANSIBLE_DISPLAY_OK_HOSTS": "yes",
                "ANSIBLE_FORCE_COLOR": "0",
                "ANSIBLE_NOCOLOR": "1",
            },
        )
    if done.returncode:
        raise RuntimeError(f"Ansible could not resolve the roles' options:\n{done.stdout}")
    results = re.finditer(r"(?ms)^ok: \[([^\]]+)\] => (\{\n.*?^\})", done.stdout)
    return {result[1]: json.loads(result[2])["msg"] for result in results}


def effective(name: str) -> dict[str, Any]:
    """Give every role's options as site.yml would see them on a host, resolved by Ansible."""
    return _resolved()[name]


@functools.cache
def connect(name: str, *, sudo: bool = True) -> Host:
    """Give the host as testinfra sees it: over SSH as the inventory says, as root by default.

    Waits until sshd answers; raises TimeoutError when it does not within the time of a boot.
    """
    host = lab().hosts[name]
    own = host.variables
    if own.get("ansible_connection") == "local":
        return testinfra.get_host("local://", sudo=sudo)
    remote.wait_until(f"ssh on {name}", lambda: remote.ssh_answers(name), remote.BOOT_SECONDS)
    return testinfra.get_host(
        f"ssh://{own.get('ansible_user', 'root')}@{host.address}",
        sudo=sudo,
        ssh_identity_file=str(Path(own["ansible_ssh_private_key_file"]).expanduser()),
        controlpath=f"{_SOCKETS.name}/{name}",
        ssh_extra_args=f"{own.get('ansible_ssh_common_args', '')} {_NOTICE_DEATH}",
    )


def output(name: str, command: str, *arguments: str, sudo: bool = True) -> str:
    """Run a shell command, its arguments quoted into %s, and give its output; it must succeed."""
    text: str = connect(name, sudo=sudo).check_output(command, *arguments)
    return text


def as_user(user: str, command: str) -> str:
    """Give the command that runs a shell command as another user, in no session of theirs."""
    return f"setpriv --reuid={user} --regid={user} --init-groups sh -c {shlex.quote(command)}"


def authority() -> Path:
    """Give the controller's copy of the certificate of the deployment's own authority."""
    first = names("backends")[0]
    return Path(effective(first)["modhaven_state_dir"]) / "pki" / "ca.crt"


def trusting() -> ssl.SSLContext:
    """Give a context that trusts the deployment's authority, nobody else, and checks names."""
    return ssl.create_default_context(cafile=str(authority()))


def address(name: str) -> str:
    """Give the address that the other hosts of the deployment know a host by."""
    return str(effective(name)["modhaven_address"])


def vip() -> str:
    """Give the address that moves between the edges; empty when the inventory wants none."""
    return str(effective(names("edges")[0])["vip_address"])


def ask(
    host: str,
    port: int,
    target: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """Ask for a target exactly as written: nothing is normalized; TLS when there is a context.

    Raises OSError (ssl.SSLError among them) when there is no answer.
    """
    connection = (
        http.client.HTTPSConnection(host, port, timeout=HTTP_SECONDS, context=context)
        if context
        else http.client.HTTPConnection(host, port, timeout=HTTP_SECONDS)
    )
    with closing(connection):
        connection.request(method, target, headers=headers or {})
        answer = connection.getresponse()
        return Answer(status=answer.status, headers=answer.headers, body=answer.read())


def ask_edge(
    edge: str, target: str, *, method: str = "GET", headers: dict[str, str] | None = None
) -> Answer:
    """Ask one edge at its own address, over TLS where it has that."""
    own = effective(edge)
    secure = own["edge_https"]
    return ask(
        address(edge),
        own["edge_https_port" if secure else "edge_http_port"],
        target,
        method=method,
        headers=headers,
        context=trusting() if secure else None,
    )


def as_target(path: str) -> str:
    """Escape a decoded path for a request line, leaving what the go command leaves."""
    return quote(path, safe="/!@+~")


def wait_until_kept(edge: str, path: str) -> None:
    """As cluster.wait_until_kept, of an edge of any inventory."""
    remote.wait_until(
        f"{path} in the cache",
        lambda: ask_edge(edge, path).headers["X-Modhaven-Cache"] == "HIT",
        10,
    )


def log_of(edge: str, mark: str, wanted: int = 1) -> dict[str, dict[str, Any]]:
    """Give the log's records by user agent, of all that begin so; waits for so many."""
    records = logged(edge, EDGE_LOG, mark, wanted)
    return {record["user_agent"]: record for record in records}


def logged(host: str, log: str, mark: str, wanted: int = 1) -> list[dict[str, Any]]:
    """Give a log's records with the mark in them; waits for so many."""
    deadline = time.monotonic() + LOG_SECONDS
    while True:
        found: bytes = connect(host).run(f"grep --text {mark} {log}").stdout_bytes
        lines = found.decode().splitlines()
        if len(lines) >= wanted or time.monotonic() > deadline:
            return [json.loads(line) for line in lines]
        time.sleep(_LOG_PAUSE_SECONDS)
