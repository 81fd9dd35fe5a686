"""Private modules straight from git: what an operator is promised who lists `direct`."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster, golang
from tests.e2e.playbook import play
from tests.lab import faults, remote
from tests.lab.inventory import ROOT, lab
from tests.lab.web import get

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.playbook import PlaybookRun

LAB = "inventories/lab"
GIT = lab().group("git_servers")[0]
HTTPS = str(GIT.variables["git_https_name"])
SSH = str(GIT.variables["git_ssh_name"])
GREET = f"{HTTPS}/team/greet"
LEDGER = f"{SSH}/team/ledger"
STORE = "/var/lib/modhaven/store"
CREDENTIALS = "/etc/modhaven/direct"
MIRRORS = ("goproxy.cn", "goproxy.io", "proxy.golang.org", "localhost.localdev")
PUBLIC_CHAIN = "https://goproxy.cn|https://goproxy.io|https://proxy.golang.org"
WRONG_PASSWORD = "wr0ng-and-never-shown"  # noqa: S105 - the git server does not know it
# Some tests run the whole playbook twice.
pytestmark = pytest.mark.timeout(600)


def build(imported: str, expression: str, version: str) -> golang.GoRun:
    """Build and run, with an empty module cache, a program that prints one expression."""
    program = (
        f'package main\n\nimport (\n\t"fmt"\n\n\tp "{imported}"\n)\n\n'
        f"func main() {{ fmt.Println({expression}) }}\n"
    )
    script = f"""
        work=$(mktemp -d); trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT; cd "$work"
        export GOMODCACHE="$work/modcache" GOFLAGS=-modcacherw
        go mod init example.com/try
        printf %s {shlex.quote(program)} > main.go
        go get {imported}@{version}
        go build -o try .
        LANG=en ./try
    """
    return golang.shell(cluster.client(), script)


def forget(*paths: str) -> None:
    """Remove modules' files and kept answers from every store and every edge's cache."""
    folders = [f"{STORE}/{part}/{path}" for part in ("cache/download", "mutable") for path in paths]
    for backend in cluster.names("backends"):
        remote.run(backend, "rm", "-rf", *folders)
    cluster.forget_edge_caches()


def ask_app(backend: str, path: str) -> None:
    """Have one backend's app answer, so that its own store holds the file."""
    options = "--silent --show-error --fail --output /dev/null --unix-socket /run/modhaven/app.sock"
    remote.run(backend, "curl", *options.split(), f"http://app{path}")


def app_processes() -> list[str]:
    return [
        remote.run(backend, "systemctl", "show", "--property=MainPID", "modhaven").stdout
        for backend in cluster.names("backends")
    ]


# --- builds


def test_a_private_module_and_what_it_needs_are_built_over_https_with_a_password() -> None:
    """Its sub-module comes from git too, and rsc.io/quote from the mirrors, verified."""
    forget(HTTPS, "rsc.io")
    run = build(GREET, "p.Hello()", "v1.1.0")
    assert run.ok, run.output
    assert "private friend: Hello, world." in run.output


def test_a_private_module_is_built_over_ssh_with_a_key() -> None:
    forget(SSH)
    run = build(LEDGER, "p.Total()", "v1.0.0")
    assert run.ok, run.output
    assert "a private ledger" in run.output


@pytest.mark.parametrize(
    ("imported", "expression", "version", "printed"),
    [
        (f"{GREET}/v2", "p.Hello()", "v2.0.0", "greetings of v2.0.0"),
        (f"{GREET}/words", "p.Friend", "latest", "private friend"),
        (f"{HTTPS}/tools/clock.git", "p.Now()", "v0.1.0", "a private clock"),
        (GREET, "p.Bye()", "main", "bye, private friend"),
    ],
    ids=["a major version", "a sub-module", "a path that ends in .git", "a branch"],
)
def test_a_private_module_is_built_when_it_is(
    imported: str, expression: str, version: str, printed: str
) -> None:
    run = build(imported, expression, version)
    assert run.ok, run.output
    assert printed in run.output


def test_clients_can_neither_reach_the_git_server_nor_go_past_the_proxy() -> None:
    """So that what the tests above built came through a backend."""
    for name in (HTTPS, SSH):
        asked = remote.run(cluster.client(), "getent", "hosts", name, check=False)
        assert asked.returncode != 0, asked.stdout
    known = golang.shell(cluster.client(), "go env GOPRIVATE GONOPROXY GONOSUMDB").output
    assert known.splitlines() == ["", "", "*.corp.example"]


def test_nothing_private_reaches_a_mirror_or_the_checksum_database() -> None:
    forget(HTTPS, SSH, "rsc.io")
    faults.forget_requests()
    assert build(GREET, "p.Hello()", "v1.1.0").ok
    assert golang.download(cluster.client(), f"{LEDGER}@latest").ok
    assert not golang.download(cluster.client(), f"{HTTPS}/team/none@latest").ok
    seen = [request["path"] for name in MIRRORS for request in faults.requests_seen(name)]
    assert any("rsc.io/quote" in path for path in seen), "the mirrors' logs show no build"
    assert [path for path in seen if "corp.example" in path] == []


def test_a_module_that_the_git_server_does_not_have_is_told_so() -> None:
    run = golang.download(cluster.client(), f"{HTTPS}/team/none@v1.0.0")
    assert not run.ok
    assert f"{HTTPS}/team/none" in run.output
    assert "not found" in run.output


def test_a_tag_that_is_pushed_is_in_the_next_list_that_is_made() -> None:
    repository = "/srv/git/team/greet.git"
    tag = f"v1.1.{int(time.time())}"
    assert get(cluster.vip(), f"/{GREET}/@v/list").status == 200
    remote.run(GIT.name, "git", "-C", repository, "tag", tag, "v1.1.0")
    try:
        # What is left of the list's freshness is not waited for.
        for backend in cluster.names("backends"):
            remote.run(backend, "rm", "-rf", f"{STORE}/mutable/{GREET}")
        cluster.forget_edge_caches()
        versions = get(cluster.vip(), f"/{GREET}/@v/list").body.decode().split()
        assert versions == sorted({"v1.0.0", "v1.1.0", tag})
        assert golang.download(cluster.client(), f"{GREET}@{tag}").ok
    finally:
        remote.run(GIT.name, "git", "-C", repository, "tag", "--delete", tag)
        forget(GREET)


# --- the git server is down


def test_what_was_downloaded_before_is_served_with_the_git_server_down() -> None:
    known = (f"{GREET}@v1.1.0", f"{LEDGER}@v1.0.0")
    lists = [f"/{module}/@v/list" for module in (GREET, LEDGER)]
    for module in known:
        assert golang.download(cluster.client(), module).ok
    for backend in cluster.names("backends"):
        ask_app(backend, f"/{GREET}/@v/v1.1.0.info")
        ask_app(backend, f"/{LEDGER}/@v/v1.0.0.info")
    cluster.forget_edge_caches()
    with faults.service_stopped(GIT.name, "nginx.service", "ssh.service"):
        for module in known:
            run = golang.download(cluster.client(), module)
            assert run.ok, run.output
        for backend in cluster.names("backends"):
            # What was kept of the lists is gone: the store itself must say what it holds.
            remote.run(backend, "rm", "-rf", *(f"{STORE}/mutable/{m}" for m in (GREET, LEDGER)))
        cluster.forget_edge_caches()
        for path in lists:
            answer = get(cluster.vip(), path)
            assert answer.status == 200, answer.body
            assert answer.body.strip()
            assert int(answer.headers["x-modhaven-stale"]) >= 0
    # Nothing is left behind of the failure.
    forget(GREET)
    assert golang.download(cluster.client(), f"{GREET}@v1.0.0").ok


# --- processes


def left_over(backend: str) -> list[str]:
    """The processes of the app's user, zombies too, that are neither the app nor its workers."""
    shown = remote.run(backend, "ps", "-U", "modhaven", "-o", "comm=,stat=,args=").stdout
    return [line for line in shown.splitlines() if "/bin/modhaven serve" not in line]


def nothing_is_left() -> bool:
    return not any(left_over(backend) for backend in cluster.names("backends"))


def test_no_process_of_go_git_or_ssh_outlives_what_it_was_started_for() -> None:
    forget(HTTPS, SSH)
    wanted = [
        f"{GREET}@main",
        f"{GREET}/v2@latest",
        f"{LEDGER}@latest",
        f"{HTTPS}/team/none@v1.0.0",
    ]
    for module in wanted:
        golang.download(cluster.client(), module)
    # One whose asker has gone away.
    with contextlib.suppress(TimeoutError):
        forget(GREET)
        get(cluster.vip(), f"/{GREET}/@latest", timeout=0.05)
    remote.wait_until("every backend to run the app alone", nothing_is_left, timeout=60)


# --- credentials


def secrets() -> list[str]:
    """The password, and the lines of the private key that are secret."""
    folder = f"{LAB}/.state/git"
    password = ROOT.joinpath(folder, "password").read_text().strip()
    key = ROOT.joinpath(folder, "id_ed25519").read_text().splitlines()
    # The first two lines of OpenSSH's format hold the cipher and the public key.
    return [password, *key[3:-1], WRONG_PASSWORD]


@pytest.mark.parametrize("backend", cluster.names("backends"))
def test_credentials_are_closed_to_everybody_but_root_and_the_app(backend: str) -> None:
    shown = remote.run(backend, "find", CREDENTIALS, "-printf", "%f %u:%g %m\n").stdout
    assert sorted(shown.splitlines()) == [
        "direct root:modhaven 750",
        "known_hosts root:modhaven 640",
        "netrc root:modhaven 640",
        f"{SSH}.key root:modhaven 640",
    ]
    for user, may in (("modhaven", True), ("www-data", False), ("nobody", False)):
        read = f"setpriv --reuid={user} --regid={user} --init-groups cat {CREDENTIALS}/netrc"
        assert (remote.run(backend, *read.split(), check=False).returncode == 0) is may, user


@pytest.mark.parametrize("backend", cluster.names("backends"))
def test_no_secret_is_in_a_log_or_in_the_store(backend: str) -> None:
    assert build(GREET, "p.Hello()", "v1.1.0").ok
    journal = remote.run(backend, "journalctl", "--unit=modhaven", "--output=cat").stdout
    for secret in secrets():
        assert secret not in journal
        found = remote.run(backend, "grep", "-rlF", secret, STORE, "/var/log/nginx", check=False)
        assert found.stdout == ""


def wrong_credentials(folder: Path) -> tuple[str, str]:
    """Options for ansible-playbook: a password and a key that the git server does not know."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True
    )
    known = ROOT.joinpath(LAB, ".state/git/known_hosts").read_text()
    wrong = {
        "backend_direct_https": [{"host": HTTPS, "user": "modhaven", "password": WRONG_PASSWORD}],
        "backend_direct_ssh": [
            {"host": SSH, "key": (folder / "key").read_text(), "host_key": known}
        ],
    }
    path = folder / "wrong.json"
    path.write_text(json.dumps(wrong))
    return ("-e", f"@{path}")


@pytest.fixture(scope="module")
def deployed_with_wrong_credentials(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[PlaybookRun, list[str]]]:
    """The playbook's run that wrote them, and the app's processes before it."""
    before = app_processes()
    options = wrong_credentials(tmp_path_factory.mktemp("credentials"))
    try:
        run = play("site.yml", LAB, "--diff", "-vv", "--limit", "backends,localhost", *options)
        assert run.ok, run.output
        forget(HTTPS, SSH)
        yield run, before
    finally:
        back = play("site.yml", LAB, "--limit", "backends,localhost")
        forget(HTTPS, SSH)
    assert back.ok, back.output
    # The right ones are taken as they are written, too.
    for module in (f"{GREET}@v1.0.0", f"{LEDGER}@v1.0.0"):
        done = golang.download(cluster.client(), module)
        assert done.ok, done.output
    assert app_processes() == before


def test_new_credentials_are_written_without_being_shown_and_taken_without_a_restart(
    deployed_with_wrong_credentials: tuple[PlaybookRun, list[str]],
) -> None:
    run, before = deployed_with_wrong_credentials
    assert set(run.changed()) == set(cluster.names("backends"))
    assert [secret for secret in secrets() if secret in run.output] == []
    assert "PRIVATE KEY" not in run.output
    assert app_processes() == before


@pytest.mark.usefixtures("deployed_with_wrong_credentials")
@pytest.mark.parametrize(
    ("module", "why"),
    [(GREET, "refused the login"), (LEDGER, "refused the key")],
    ids=["https", "ssh"],
)
def test_wrong_credentials_are_told_to_the_go_user_without_a_secret(module: str, why: str) -> None:
    # A version that was fetched before needs no login any more: its clone is there.
    run = golang.download(cluster.client(), f"{module}@latest")
    assert not run.ok
    assert why in run.output, run.output
    assert [secret for secret in secrets() if secret in run.output] == []
    assert CREDENTIALS not in run.output


def test_everything_of_direct_goes_away_when_the_inventory_no_longer_has_it() -> None:
    try:
        run = play(
            "site.yml",
            LAB,
            "--limit",
            "backends,localhost",
            "-e",
            f"backend_upstreams={PUBLIC_CHAIN}",
        )
        assert run.ok, run.output
        for backend in cluster.names("backends"):
            for path in (CREDENTIALS, "/opt/modhaven/go"):
                assert remote.run(backend, "test", "-e", path, check=False).returncode != 0, path
            config = remote.run(backend, "cat", "/etc/modhaven/modhaven.yml").stdout
            assert "direct" not in config
        assert golang.build(cluster.client()).ok
        forget(HTTPS)
        refused = golang.download(cluster.client(), f"{GREET}@v1.0.0")
        assert not refused.ok
    finally:
        back = play("site.yml", LAB, "--limit", "backends,localhost")
    assert back.ok, back.output
    # The edges remember "not found" for a minute.
    cluster.forget_edge_caches()
    done = golang.download(cluster.client(), f"{GREET}@v1.0.0")
    assert done.ok, done.output
