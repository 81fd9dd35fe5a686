"""``direct``: what the go command is started with, its places, and its way in the chain."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modhaven import cli, config, direct_env
from modhaven.attempt import AttemptError, Deadline
from modhaven.direct import Direct
from modhaven.direct_shared import Shared

if TYPE_CHECKING:
    from modhaven.config import Config

MODULE = "git.corp.example/team/lib"
# A go command that answers what the file "answer" beside it says, and tells what it was given.
FAKE = """#!/bin/sh
here=$(dirname "$0")
env > "$here/env"; printf '%s\\n' "$@" > "$here/arguments"; pwd > "$here/pwd"
cp "$GIT_CONFIG_GLOBAL" "$here/gitconfig"; cp "${GIT_CONFIG_GLOBAL%gitconfig}ssh_config" "$here/"
. "$here/answer"
"""


@pytest.fixture
def fake_go(tmp_path: Path) -> Path:
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "go").write_text(FAKE)
    (folder / "go").chmod(0o700)
    return folder


def make(folder: Path, fake_go: Path, **changes: Any) -> tuple[Direct, Config]:
    settings = {
        "upstreams": "direct",
        "store": {"path": str(folder / "store")},
        **changes,
    }
    settings["direct"] = {"go": str(fake_go / "go"), **settings.get("direct", {})}
    loaded = config.from_mapping(settings)
    return Direct(loaded.upstreams[-1], Shared(loaded)), loaded


def answer(fake_go: Path, script: str) -> None:
    (fake_go / "answer").write_text(script)


def fetch(direct: Direct, path: str, seconds: float = 20, limit: int = 1000) -> bytes:
    sink = io.BytesIO(b"what an upstream before it wrote")
    direct.fetch(path, sink, limit=limit, deadline=Deadline.after(seconds))
    return sink.getvalue()


def test_nothing_of_the_server_reaches_the_go_command(
    tmp_path: Path, fake_go: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nasty = {
        "GOFLAGS": "-mod=vendor", "GOPROXY": "https://evil", "GOINSECURE": "*", "GOVCS": "*:all",
        "GIT_SSH": "/evil", "GIT_DIR": "/evil", "GIT_CONFIG_COUNT": "1", "HTTPS_PROXY": "http://evil",
        "SSH_AUTH_SOCK": "/evil", "NETRC": "/evil", "XDG_CONFIG_HOME": "/evil", "TOKEN": "/evil",
        "GIT_CONFIG_PARAMETERS": "'evil'", "GODEBUG": "evil", "BASH_ENV": "/evil", "ENV": "/evil",
    }  # fmt: skip
    for name, value in nasty.items():
        monkeypatch.setenv(name, value)
    direct, loaded = make(tmp_path, fake_go)
    answer(fake_go, f"""echo '{{"Path": "{MODULE}", "Versions": ["v1.0.0", "v1.1.0"]}}'""")

    assert fetch(direct, f"{MODULE}/@v/list") == b"v1.0.0\nv1.1.0\n"

    text = (fake_go / "env").read_text()
    given = dict(line.split("=", 1) for line in text.splitlines())
    assert "evil" not in text
    assert not nasty.keys() & given.keys() - {"GOFLAGS", "GOPROXY", "GOINSECURE", "GOVCS"}
    assert given["GOPROXY"] == "direct"
    assert given["GOSUMDB"] == "off"
    assert given["GOVCS"] == "*:git"
    assert given["GIT_ALLOW_PROTOCOL"] == "https:ssh"
    assert given["GIT_TERMINAL_PROMPT"] == "0"
    assert given["SSL_CERT_FILE"] == given["GIT_SSL_CAINFO"] == str(loaded.ca_file)
    own = str(tmp_path / "store" / "direct" / "calls")
    for name in ("HOME", "GOMODCACHE", "GOCACHE", "GOPATH", "TMPDIR", "GIT_CONFIG_GLOBAL"):
        assert given[name].startswith(own), name
    assert (fake_go / "pwd").read_text().startswith(own)
    assert list(Path(own).iterdir()) == []


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        (f"{MODULE}/@v/list", f"list -m -e -json -v -x -versions -retracted {MODULE}@latest"),
        (f"{MODULE}/@latest", f"list -m -e -json -v -x {MODULE}@latest"),
        (f"{MODULE}/@v/main.info", f"list -m -e -json -v -x {MODULE}@main"),
        (f"{MODULE}/@v/v1.0.0.info", f"list -m -e -json -v -x {MODULE}@v1.0.0"),
        (f"{MODULE}/@v/v1.0.0.mod", f"list -m -e -json -v -x {MODULE}@v1.0.0"),
        (f"{MODULE}/@v/v1.0.0.zip", f"mod download -json -x {MODULE}@v1.0.0"),
        ("git.corp.example/!upper/@v/v1.0.0.zip",
         "mod download -json -x git.corp.example/Upper@v1.0.0"),
    ],
)  # fmt: skip
def test_what_the_go_command_is_asked(
    tmp_path: Path, fake_go: Path, path: str, arguments: str
) -> None:
    direct, _ = make(tmp_path, fake_go)
    answer(fake_go, """echo '{"Error": "no matching versions for query"}'""")
    with pytest.raises(AttemptError):
        fetch(direct, path)
    assert (fake_go / "arguments").read_text().split() == arguments.split()


def test_credentials_and_proxies_are_in_files_and_variables_of_the_call(
    tmp_path: Path, fake_go: Path
) -> None:
    (tmp_path / "netrc").write_text("machine git.corp.example login a password b\n")
    direct, _ = make(
        tmp_path,
        fake_go,
        upstreams=[
            {"url": "direct", "proxy": "http://u:p@egress.example:3128", "ca_file": "/ca.pem"}
        ],
        private="*.corp.example",
        direct={
            "netrc_file": str(tmp_path / "netrc"),
            "known_hosts_file": "/known hosts",
            "insecure": "old.example",
            "vcs": "corp.example:git,*:off",
            "ssh": [{"host": "git.corp.example", "port": 2222, "key_file": "/the key"}],
        },
    )
    answer(fake_go, """cp "$HOME/.netrc" "$here/netrc"; echo '{"Versions": []}'""")
    assert fetch(direct, f"{MODULE}/@v/list") == b""
    given = dict(line.split("=", 1) for line in (fake_go / "env").read_text().splitlines())
    assert given["HTTPS_PROXY"] == given["https_proxy"] == "http://u:p@egress.example:3128"
    assert given["GOPRIVATE"] == "*.corp.example"
    assert given["GOINSECURE"] == "old.example"
    assert given["GOVCS"] == "corp.example:git,*:off"
    assert given["GIT_ALLOW_PROTOCOL"] == "https:ssh:http"
    assert given["SSL_CERT_FILE"] == given["GIT_SSL_CAINFO"] == "/ca.pem"
    assert (fake_go / "netrc").read_text() == (tmp_path / "netrc").read_text()
    git_config = (fake_go / "gitconfig").read_text()
    assert '[url "ssh://git@git.corp.example:2222/"]\ninsteadOf = https://git.corp.example/' in (
        git_config
    )
    assert "proxyAuthMethod = basic" in git_config
    ssh = (fake_go / "ssh_config").read_text()
    assert 'IdentityFile "/the key"' in ssh.partition("Host *")[0]
    assert 'UserKnownHostsFile "/known hosts"' in ssh
    assert "StrictHostKeyChecking yes" in ssh


def test_files_come_from_the_module_cache(tmp_path: Path, fake_go: Path) -> None:
    direct, _ = make(tmp_path, fake_go)
    answer(
        fake_go,
        f"""at="$GOMODCACHE/cache/download/{MODULE}/@v"; mkdir -p "$at"
        for kind in info mod zip; do printf "the $kind" > "$at/v1.2.3.$kind"; done
        echo '{{"Version": "v1.2.3"}}'""",
    )
    for path, wanted in {
        "@latest": b"the info",
        "@v/main.info": b"the info",
        "@v/v1.2.3.info": b"the info",
        "@v/v1.2.3.mod": b"the mod",
        "@v/v1.2.3.zip": b"the zip",
    }.items():
        assert fetch(direct, f"{MODULE}/{path}") == wanted
    with pytest.raises(AttemptError, match=r"has v1\.2\.3 in its place") as caught:
        fetch(direct, f"{MODULE}/@v/v1.2.4.mod")
    assert caught.value.not_found
    with pytest.raises(AttemptError, match="7 bytes, more than 6"):
        fetch(direct, f"{MODULE}/@v/v1.2.3.zip", limit=6)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'go: cannot do it' >&2; exit 1", "cannot do it"),
        ("exit 7", "ended with status 7 and said nothing"),
        ("echo '[]'", "status 0"),
        ("echo not json; echo '# get https://x' >&2; echo 'go: why' >&2", "why"),
        ("sleep 60", "timed out"),
        ("yes", "wrote more than it may"),
    ],
)
def test_a_go_command_that_misbehaves(
    tmp_path: Path, fake_go: Path, script: str, words: str
) -> None:
    direct, _ = make(tmp_path, fake_go, upstream_retries=0)
    answer(fake_go, script)
    with pytest.raises(AttemptError, match=words) as caught:
        fetch(direct, f"{MODULE}/@v/list", seconds=2 if "sleep" in script else 20)
    assert caught.value.timed_out is ("sleep" in script)
    assert not caught.value.not_found
    assert list((tmp_path / "store/direct/calls").iterdir()) == []


def test_the_failure_of_one_origin_leaves_nothing_out(tmp_path: Path, fake_go: Path) -> None:
    direct, _ = make(tmp_path, fake_go)
    for _ in range(10):
        direct.breaker.failed(timed_out=True)
    assert direct.breaker.lets_through()
    assert direct.recovers(seconds=0)


def test_a_passing_failure_is_tried_again_and_a_lasting_one_is_not(
    tmp_path: Path, fake_go: Path
) -> None:
    direct, _ = make(tmp_path, fake_go, upstream_retries=2)
    said = json.dumps({"Error": {"Err": "x: reading https://a.b/x: 503 Service Unavailable"}})
    count = fake_go / "count"
    answer(
        fake_go,
        f"""echo x >> "$here/count"
        [ $(wc -l < "$here/count") -lt 3 ] && echo '{said}' || echo '{{"Versions": ["v1.0.0"]}}'""",
    )
    assert fetch(direct, f"{MODULE}/@v/list") == b"v1.0.0\n"
    count.unlink()
    answer(fake_go, """echo x >> "$here/count"; echo '{"Error": {"Err": "GOVCS disallows it"}}'""")
    with pytest.raises(AttemptError, match="GOVCS disallows it"):
        fetch(direct, f"{MODULE}/@v/list")
    assert count.read_text() == "x\n"


def test_who_finds_no_place_is_told_so(
    tmp_path: Path, fake_go: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modhaven.direct_shared._PLACE_SECONDS", 0.3)
    direct, _ = make(tmp_path, fake_go, direct={"processes": 1})
    answer(fake_go, f"touch '{tmp_path}/began'; sleep 60")
    failed: list[AttemptError] = []

    def occupy() -> None:
        try:
            fetch(direct, f"{MODULE}/@v/list", seconds=3)
        except AttemptError as error:
            failed.append(error)

    thread = threading.Thread(target=occupy)
    thread.start()
    while not (tmp_path / "began").exists():
        time.sleep(0.01)
    with pytest.raises(AttemptError, match=r"no free place .* all 1 go commands .*processes"):
        fetch(direct, "other.example/x/@v/list")
    thread.join()
    assert failed[0].timed_out


def test_a_missing_command_is_a_sentence(
    tmp_path: Path,
    fake_go: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    direct, _ = make(tmp_path, fake_go)
    (fake_go / "go").unlink()
    with pytest.raises(AttemptError, match=r"was not found: install Go, or name it in direct\.go"):
        fetch(direct, f"{MODULE}/@v/list")
    file = tmp_path / "modhaven.yml"
    ca = tmp_path / "ca.pem"
    ca.touch()
    file.write_text(json.dumps({"upstreams": "https://a.b|direct", "ca_file": str(ca),
                                "direct": {"go": "/nonexistent/go"}}))  # fmt: skip
    assert cli.main(["serve", "--config", str(file)]) == 2
    assert capsys.readouterr().err == (
        "modhaven: upstreams has direct, and the go command '/nonexistent/go' was not found:"
        " install Go, or name it in direct.go\n"
    )
    monkeypatch.setattr(os, "environ", {"PATH": str(fake_go)})
    monkeypatch.setattr(direct_env, "_SYSTEM_PATH", str(fake_go))
    with pytest.raises(AttemptError, match="git was not found: install it"):
        direct_env.find_git()


def test_what_is_private_and_what_it_never_serves(tmp_path: Path, fake_go: Path) -> None:
    direct, _ = make(tmp_path, fake_go)
    assert not direct.serves_all
    assert direct.is_for(MODULE, private=True)
    only, _ = make(
        tmp_path,
        fake_go,
        upstreams=[{"url": "direct", "modules": "corp.x", "not_modules": "corp.x/a"}],
    )
    assert only.is_for("corp.x/b", private=True)
    assert not only.is_for("corp.x/a", private=False)
    assert not only.is_for(MODULE, private=False)
    with pytest.raises(AttemptError, match=r"\.\.\. for a pattern"):
        fetch(direct, "git.corp.example/a...b/@v/list")
