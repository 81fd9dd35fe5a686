"""``direct`` through a real ``modhaven serve``: the go command, git, and a git host over TLS."""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import go as go_distribution
import pytest
from tests.conftest import TEST_SUMDB, GoTestServer
from tests.integration.egress import Proxy
from tests.integration.git_origin import PASSWORD, USER, Origin, git
from tests.integration.test_app_chain import Authority
from tests.integration.test_app_go import Server, Servers, serve, stored

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["serve"]
pytestmark = pytest.mark.integration
# Without the wrapper that starts a Python for each go command.
GO = str(Path(str(go_distribution.__file__)).parent / "bin" / "go")
HOST, OTHER, SILENT = "git.corp.example", "code.corp.example", "silent.corp.example"
# Go's test database knows rsc.io/quote.
HOSTS = (HOST, OTHER, SILENT, "rsc.io")
LIB = f"{HOST}/team/lib"
V2_FILE = {"go.mod": f"module {LIB}/v2\n\ngo 1.21\n", "lib.go": "package lib\n"}


class Corp:
    """A company's git host, reached through its egress proxy, which alone knows the names."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, hosts=HOSTS)
        self.origin = Origin(folder / "repositories", self.authority.server_context())
        ports = {f"{host}:443": self.origin.port for host in HOSTS}
        self.proxy = Proxy("http", ports)

    def close(self) -> None:
        self.origin.close()
        self.proxy.close()

    def publish(self, path: str, host: str = HOST) -> None:
        """Say on the module's page where its repository is."""
        self.origin.imports[f"{host}/{path}"] = f"git https://{host}/{path}.git"

    def upstream(self, **options: Any) -> dict[str, Any]:
        return {
            "url": "direct",
            "proxy": self.proxy.url,
            "ca_file": str(self.authority.file),
            **options,
        }

    def server(self, serve: Servers, *before: dict[str, Any], **changes: Any) -> Server:
        """A server with ``direct`` last, all of whose modules are private."""
        settings: dict[str, Any] = {
            "sumdb": "off",
            "private": "*.corp.example",
            "upstream_timeouts": {},
            "workers": 1,
            **changes,
        }
        settings["direct"] = {"go": GO, **settings.get("direct", {})}
        options = settings.pop("options", {})
        return serve([*before, self.upstream(**options)], **settings)


@pytest.fixture
def corp(tmp_path: Path) -> Iterator[Corp]:
    made = Corp(tmp_path)
    yield made
    made.close()


@pytest.fixture
def library(corp: Corp) -> Corp:
    """git.corp.example/team/lib: v1.0.0, v1.1.0, sub/v1.2.3, v2.0.0, and a branch."""
    repository = corp.origin.repository("team/lib.git")
    corp.publish("team/lib")
    text = {"go.mod": f"module {LIB}\n\ngo 1.21\n", "lib.go": "package lib\n\nconst V = 1\n"}
    repository.commit(text, "v1.0.0")
    repository.commit({"lib.go": "package lib\n\nconst V = 2\n"}, "v1.1.0")
    nested = {"sub/go.mod": f"module {LIB}/sub\n", "sub/sub.go": "package sub\n"}
    repository.commit(nested, "sub/v1.2.3")
    repository.commit(V2_FILE, "v2.0.0", branch="v2")
    return corp


def go_itself(corp: Corp, folder: Path, *arguments: str) -> dict[str, Any]:
    """Ask the go command with GOPROXY=direct, without us between; its answer is JSON."""
    done = subprocess.run(
        [GO, *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"], "HOME": str(folder), "GOMODCACHE": str(folder / "modcache"),
            "GOPROXY": "direct", "GOSUMDB": "off", "GOFLAGS": "-modcacherw",
            "GOTOOLCHAIN": "local", "GIT_SSL_CAINFO": str(corp.authority.file),
            "SSL_CERT_FILE": str(corp.authority.file), "HTTPS_PROXY": corp.proxy.url,
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.proxyAuthMethod",
            "GIT_CONFIG_VALUE_0": "basic",
        },
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


CASES = {
    "tagged": (LIB, "v1.0.0"),
    "nested": (f"{LIB}/sub", "v1.2.3"),
    "major version": (f"{LIB}/v2", "v2.0.0"),
    "incompatible": (f"{HOST}/team/old", "v2.0.0+incompatible"),
    "upper case": (f"{HOST}/team/Upper", "v1.0.0"),
    "pseudo-version": (f"{HOST}/team/untagged", "main"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_served_is_what_the_go_command_fetches_itself(
    tmp_path: Path, serve: Servers, library: Corp, case: str
) -> None:
    old = library.origin.repository("team/old.git")
    old.commit({"old.go": "package old\n"}, "v1.0.0")
    old.commit({"old.go": "package old\n\n// 2\n"}, "v2.0.0")
    upper = library.origin.repository("team/Upper.git")
    upper.commit({"go.mod": f"module {HOST}/team/Upper\n"}, "v1.0.0")
    library.origin.repository("team/untagged.git").commit({"x.go": "package x\n"})
    for path in ("team/old", "team/Upper", "team/untagged"):
        library.publish(path)
    module, query = CASES[case]
    (tmp_path / "itself").mkdir()
    itself = go_itself(
        library, tmp_path / "itself", "mod", "download", "-json", f"{module}@{query}"
    )
    server = library.server(serve)
    escaped = module.replace("Upper", "!upper")
    version = itself["Version"]

    if query != version:
        asked = server.get(f"{escaped}/@v/{query}.info")
        assert asked.json()["Version"] == version
    base = f"{escaped}/@v/{version}"
    zipped, mod, info = (server.get(f"{base}.{extension}") for extension in ("zip", "mod", "info"))

    assert mod.content == Path(itself["GoMod"]).read_bytes()
    assert zipped.content == Path(itself["Zip"]).read_bytes()
    expected = json.loads(Path(itself["Info"]).read_text())
    assert {key: info.json()[key] for key in ("Version", "Time")} == {
        key: expected[key] for key in ("Version", "Time")
    }
    assert info.json()["Origin"]["Hash"] == expected["Origin"]["Hash"]
    assert {answer.headers["X-Modhaven-Source"] for answer in (zipped, mod, info)} == {"direct"}
    assert f"{base}.zip" in stored(server)


def test_a_build_works_and_no_private_module_is_named_to_a_mirror(
    tmp_path: Path, serve: Servers, library: Corp, fake: Any
) -> None:
    server = library.server(serve, {"url": fake.url}, workers=2)
    folder = tmp_path / "client"
    folder.mkdir()
    (folder / "go.mod").write_text("module example.com/hello\n\ngo 1.21\n")
    (folder / "hello.go").write_text(
        f'package main\n\nimport "{LIB}"\n\nfunc main() {{ println(lib.V) }}\n'
    )
    env = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "GOPROXY": server.url, "GOSUMDB": "off",
        "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local", "GOMODCACHE": str(folder / "modcache"),
        "GOCACHE": str(Path(__file__).parents[2] / ".lab" / "go-build-cache"),
    }  # fmt: skip
    for command in (["get", f"{LIB}@latest"], ["mod", "tidy"], ["build", "-o", "hello", "."]):
        subprocess.run([GO, *command], cwd=folder, env=env, check=True, timeout=120)
    done = subprocess.run([folder / "hello"], capture_output=True, check=True, timeout=10)
    assert done.stderr == b"2\n"
    assert not fake.counts


def test_lists_queries_and_latest(serve: Servers, library: Corp) -> None:
    untagged = library.origin.repository("team/untagged.git")
    untagged.commit({"x.go": "package x\n"})
    retracting = library.origin.repository("team/retracting.git")
    module = f"{HOST}/team/retracting"
    retracting.commit({"go.mod": f"module {module}\n"}, "v1.0.0")
    retracting.commit({"go.mod": f"module {module}\n\nretract v1.1.0\n"}, "v1.1.0")
    library.publish("team/untagged")
    library.publish("team/retracting")
    server = library.server(serve, freshness={"mutable_seconds": 0})

    assert server.get(f"{LIB}/@v/list").text == "v1.0.0\nv1.1.0\n"
    assert server.get(f"{LIB}/sub/@v/list").text == "v1.2.3\n"
    assert server.get(f"{LIB}/v2/@v/list").text == "v2.0.0\n"
    assert server.get(f"{LIB}/@latest").json()["Version"] == "v1.1.0"
    empty = server.get(f"{HOST}/team/untagged/@v/list")
    assert (empty.status_code, empty.text) == (200, "")
    latest = server.get(f"{HOST}/team/untagged/@latest").json()["Version"]
    assert latest.startswith("v0.0.0-20240501120000-")
    # The client retracts: it has to see what was retracted, too.
    assert server.get(f"{module}/@v/list").text == "v1.0.0\nv1.1.0\n"
    assert server.get(f"{module}/@latest").json()["Version"] == "v1.0.0"
    branch = server.get(f"{LIB}/@v/main.info").json()["Version"]
    assert branch.startswith("v1.1.1-0.20240501120000-")
    assert server.get(f"{LIB}/@v/{branch.rpartition('-')[2]}.info").json()["Version"] == branch
    commit = untagged.commit({"x.go": "package x\n\n// changed\n"})
    assert server.get(f"{HOST}/team/untagged/@latest").json()["Version"].endswith(commit[:12])


def test_info_and_mod_make_no_zip_and_no_call_leaves_anything(
    serve: Servers, library: Corp
) -> None:
    server = library.server(serve)
    assert server.get(f"{LIB}/@v/v1.0.0.info").status_code == 200
    assert server.get(f"{LIB}/@v/v1.0.0.mod").status_code == 200
    assert not any(path.endswith(".zip") for path in stored(server))
    assert list((server.store / "direct" / "calls").iterdir()) == []


NOT_THERE = {
    "unknown module": (f"{HOST}/none/such/@v/list", "404 Not Found"),
    "unknown repository": (f"{HOST}/team/gone/@v/list", "repository"),
    "unknown version": (f"{LIB}/@v/v9.9.9.info", "unknown revision v9.9.9"),
    "unknown branch": (f"{LIB}/@v/nobranch.info", "unknown revision nobranch"),
    "unknown zip": (f"{LIB}/@v/v1.9.9.zip", "unknown revision v1.9.9"),
    "unknown major version": (f"{LIB}/v3/@v/list", "no matching versions"),
    "no tags, no commits": (f"{HOST}/team/empty/@latest", "no matching versions"),
    "unknown nested module": (f"{LIB}/nosub/@latest", "no matching versions"),
    "invented pseudo-version": (
        f"{LIB}/@v/v1.0.1-0.20200101000000-abcdefabcdef.mod",
        "unknown revision abcdefabcdef",
    ),
    "private, and we have no login": (f"{HOST}/secret/lib/@v/v1.0.0.mod", "demands a login"),
}


def test_what_the_origin_does_not_have_is_404(serve: Servers, library: Corp) -> None:
    library.origin.repository("team/empty.git")
    library.publish("team/empty")
    library.publish("team/gone")
    library.publish("secret/lib")
    library.origin.private.add(f"{HOST}/secret/lib.git")
    server = library.server(serve)
    for case, (path, words) in NOT_THERE.items():
        answer = server.get(path)
        assert answer.status_code == 404, (case, answer.text)
        assert words in answer.text, case


def test_what_does_not_exist_in_a_repository_clones_it_once(serve: Servers, library: Corp) -> None:
    """go get of a deep import path asks for each of its prefixes, at once."""
    library.origin.repository("team/big.git").commit(
        {"big.go": "package big\n", "blob": os.urandom(300_000)}
    )
    library.publish("team/big")
    server = library.server(serve, workers=2)
    modules = [f"{HOST}/team/big/{rest}" for rest in ("a", "a/b", "a/b/c", "d", "e/v2")]
    paths = [
        *(f"{module}/@v/list" for module in modules),
        *(f"{module}/@latest" for module in modules),
        *(f"{module}/@v/{v}.info" for module in modules for v in ("v1.0.0", "v2.1.0", "main")),
    ]
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda path: server.get(path).status_code, paths))
    assert set(statuses) == {404}
    assert server.get(f"{HOST}/team/big/@latest").status_code == 200
    sent = library.origin.sent["team/big.git/git-upload-pack"]
    assert 300_000 < sent < 400_000, f"{sent} bytes: the repository was cloned more than once"


# --- credentials


def netrc(folder: Path, password: str, host: str = HOST) -> str:
    file = folder / "netrc"
    file.write_text(f"machine {host} login {USER} password {password}\n")
    file.chmod(0o600)
    return str(file)


@pytest.fixture
def secret(corp: Corp) -> Corp:
    """git.corp.example/secret/lib, whose page and repository demand a login."""
    repository = corp.origin.repository("secret/lib.git")
    repository.commit({"go.mod": f"module {HOST}/secret/lib\n"}, "v1.0.0")
    corp.publish("secret/lib")
    corp.origin.private.add(f"{HOST}/secret/lib")
    return corp


def test_a_private_repository_with_netrc(tmp_path: Path, serve: Servers, secret: Corp) -> None:
    public = secret.origin.repository("public/x.git")
    public.commit({"go.mod": f"module {OTHER}/public/x\n"}, "v1.0.0")
    secret.publish("public/x", OTHER)
    secret.origin.private.add(f"{OTHER}/public/x.git")
    server = secret.server(serve, direct={"netrc_file": netrc(tmp_path, "wrong")})
    path = f"{HOST}/secret/lib/@v/v1.0.0.zip"

    refused = server.get(path)
    assert refused.status_code == 502
    assert f"{HOST} refused the login in direct.netrc_file" in refused.text

    # Read again at each call, and shown to its own host only.
    netrc(tmp_path, PASSWORD)
    assert server.get(path).status_code == 200
    assert server.get(f"{OTHER}/public/x/@v/v1.0.0.zip").status_code == 404
    assert {at.partition("/")[0] for at in secret.origin.authorized} == {HOST}
    texts = [file.read_text() for file in (server.folder / "stderr", server.folder / "stdout")]
    assert not any(PASSWORD in text for text in [*texts, refused.text])


@pytest.mark.parametrize("page_demands_login", [True, False])
def test_wrong_credentials_are_a_failure_where_git_meets_them(
    tmp_path: Path, serve: Servers, secret: Corp, *, page_demands_login: bool
) -> None:
    if not page_demands_login:
        secret.origin.private = {f"{HOST}/secret/lib.git"}
    server = secret.server(serve, direct={"netrc_file": netrc(tmp_path, "wrong")})
    answer = server.get(f"{HOST}/secret/lib/@v/list")
    assert (answer.status_code, "refused the login" in answer.text) == (502, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        ("default login a password b\n", "has a default entry"),
        ("machine\n", "is not in netrc's syntax"),
    ],
)
def test_a_netrc_file_that_cannot_be_used_is_a_sentence(
    tmp_path: Path, serve: Servers, library: Corp, text: str | None, words: str
) -> None:
    file = tmp_path / "netrc"
    if text is not None:
        file.write_text(text)
    answer = library.server(serve, direct={"netrc_file": str(file)}).get(f"{LIB}/@v/list")
    assert (answer.status_code, words in answer.text) == (502, True), answer.text


# --- limits


def test_a_silent_host_is_bounded_and_disturbs_no_other(serve: Servers, library: Corp) -> None:
    library.origin.hang.add(SILENT)
    library.publish("team/slow")
    library.origin.hang.add(f"{HOST}/team/slow.git")
    server = library.server(serve, options={"total_seconds": 4})
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        page = pool.submit(server.get, f"{SILENT}/x/@v/list")
        repository = pool.submit(server.get, f"{HOST}/team/slow/@v/list")
        assert server.get(f"{LIB}/@v/list").status_code == 200
        assert not page.done()
        assert (page.result().status_code, repository.result().status_code) == (504, 504)
    assert time.monotonic() - start < 12
    assert "timed out" in page.result().text
    assert children(server) == []


def test_a_killed_server_leaves_no_process_and_its_folders_are_removed(
    serve: Servers, library: Corp
) -> None:
    library.publish("team/slow")
    library.origin.hang.add(f"{HOST}/team/slow.git")
    server = library.server(serve)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.get, f"{HOST}/team/slow/@v/list")
        wait_until(lambda: library.origin.count("GET", "team/slow.git") > 0)
        assert len(children(server)) >= 2
        server.kill()
        assert asked.exception() is not None
    wait_until(lambda: children(server) == [])
    calls = server.store / "direct" / "calls"
    assert len(list(calls.iterdir())) == 1
    library.origin.hang.clear()
    server.start()
    assert server.get(f"{LIB}/@v/list").status_code == 200
    assert list(calls.iterdir()) == []


def children(server: Server) -> list[int]:
    """Processes whose environment names the server's store: go commands, git, their guards."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(server.store / "direct").encode() in environment:
            found.append(int(entry.name))
    return found


def wait_until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_version_control_system_that_is_not_allowed(serve: Servers, library: Corp) -> None:
    library.origin.imports[f"{HOST}/hg"] = f"hg https://{HOST}/hg"
    library.origin.imports[f"{HOST}/plain"] = f"git http://{HOST}/team/lib.git"
    server = library.server(serve)
    answer = server.get(f"{HOST}/hg/@v/list")
    assert (answer.status_code, "GOVCS disallows using hg" in answer.text) == (502, True)
    answer = server.get(f"{HOST}/plain/@v/list")
    assert (answer.status_code, "transport 'http' not allowed" in answer.text) == (502, True)
    none = library.server(serve, direct={"vcs": f"{HOST}:off"})
    answer = none.get(f"{LIB}/@v/list")
    assert (answer.status_code, "GOVCS disallows using git" in answer.text) == (502, True)


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_host_that_fails_is_no_404(serve: Servers, library: Corp, status: int) -> None:
    library.origin.statuses[f"{HOST}/team/lib.git"] = status
    server = library.server(serve, upstream_retries=1)
    answer = server.get(f"{LIB}/@v/list")
    assert (answer.status_code, f"error: {status}" in answer.text) == (502, True), answer.text
    del library.origin.statuses[f"{HOST}/team/lib.git"]
    assert server.get(f"{LIB}/@v/list").status_code == 200


def test_a_passing_failure_is_tried_again(serve: Servers, library: Corp) -> None:
    server = library.server(serve)
    library.origin.fail_once(f"{HOST}/team/lib.git", 503)
    assert server.get(f"{LIB}/@v/list").status_code == 200


@pytest.mark.parametrize("damage", ["lock", "no remote", "no head", "empty objects", "wrong info"])
def test_a_damaged_clone_is_made_anew(serve: Servers, library: Corp, damage: str) -> None:
    server = library.server(serve)
    assert server.get(f"{LIB}/@v/v1.0.0.info").status_code == 200
    (clone,) = [p for p in (server.store / "direct" / "vcs").iterdir() if p.is_dir()]
    match damage:
        case "lock":
            (clone / "shallow.lock").touch()
        case "no remote":
            git(clone, "config", "--remove-section", "remote.origin")
        case "no head":
            (clone / "HEAD").unlink()
        case "empty objects":
            for path in (clone / "objects").glob("??/*"):
                path.chmod(0o600)
                path.write_bytes(b"")
        case _:
            clone.with_name(f"{clone.name}.info").write_text("another")
    assert server.get(f"{LIB}/@v/v1.0.0.zip").status_code == 200
    assert server.get(f"{LIB}/@v/main.info").status_code == 200
    assert server.get(f"{LIB}/@v/v9.0.0.info").status_code == 404


# --- in the chain


def test_the_go_command_of_the_path_is_found(serve: Servers, library: Corp) -> None:
    server = library.server(serve, direct={"go": "go"})
    assert server.get(f"{LIB}/@v/v1.0.0.zip").status_code == 200


def test_mirrors_that_are_down_and_direct_serves(
    serve: Servers, library: Corp, refused_url: str, fake: Any
) -> None:
    fake.default = type(fake.default)(hang=True)
    mirrors = [{"url": refused_url}, {"url": fake.url}]
    server = library.server(serve, *mirrors, private="")
    start = time.monotonic()
    answer = server.get(f"{LIB}/@v/v1.0.0.zip")
    assert (answer.status_code, answer.headers["X-Modhaven-Source"]) == (200, "direct")
    assert time.monotonic() - start < 10
    assert zipfile.ZipFile(io.BytesIO(answer.content)).testzip() is None


def test_a_public_module_is_compared_with_the_checksum_database(
    serve: Servers, corp: Corp, go_server: GoTestServer
) -> None:
    corp.origin.repository("quote.git").commit(
        {"go.mod": "module rsc.io/quote\n", "quote.go": "package quote\n"}, "v1.5.2"
    )
    corp.origin.imports["rsc.io/quote"] = "git https://rsc.io/quote.git"
    server = corp.server(serve, sumdb=f"{TEST_SUMDB} {go_server.root}/sumdb-direct")
    for extension in ("mod", "zip"):
        answer = server.get(f"rsc.io/quote/@v/v1.5.2.{extension}")
        assert (answer.status_code, "wrong bytes: hash is h1:" in answer.text) == (502, True)
    assert stored(server) == [path for path in stored(server) if path.startswith("sumdb/")]
    assert len(list((server.store / "quarantine").glob("*.reason"))) == 2


def test_a_private_module_that_was_tagged_again_is_refused(serve: Servers, library: Corp) -> None:
    server = library.server(serve)
    assert server.get(f"{LIB}/@v/v1.0.0.zip").status_code == 200
    (server.store / "cache/download" / f"{LIB}/@v/v1.0.0.zip").unlink()
    repository = library.origin.root / "team/lib.git"
    git(repository, "tag", "-f", "v1.0.0", "v1.1.0")
    for clone in (server.store / "direct" / "vcs").glob("*.info"):
        clone.unlink()
    answer = server.get(f"{LIB}/@v/v1.0.0.zip")
    assert (answer.status_code, "wrong bytes" in answer.text) == (502, True)
