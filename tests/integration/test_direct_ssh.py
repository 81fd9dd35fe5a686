"""``direct`` over SSH: real sshd, a key for each host, host keys that must be known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.egress import Proxy
from tests.integration.git_origin import Origin
from tests.integration.ssh_origin import SSHOrigin
from tests.integration.test_app_chain import Authority
from tests.integration.test_app_go import Server, Servers, serve
from tests.integration.test_direct_go import GO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["serve"]
pytestmark = pytest.mark.integration
# A path that ends in .git names its repository: no page is asked for where it is.
ONE, TWO = "127.0.0.1/team/lib.git", "127.0.0.2/team/lib.git"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[SSHOrigin, SSHOrigin]]:
    started: list[SSHOrigin] = []
    try:
        for name, address in (("one", "127.0.0.1"), ("two", "127.0.0.2")):
            started.append(SSHOrigin(tmp_path / name, address))
            started[-1].repository("team/lib.git").commit(
                {"go.mod": f"module {address}/team/lib.git\n", "lib.go": "package lib\n"}, "v1.0.0"
            )
        yield started[0], started[1]
    finally:
        for host in started:
            host.close()


def server_with(
    serve: Servers, folder: Path, entries: list[dict[str, Any]], known: str, **changes: Any
) -> Server:
    (folder / "known_hosts").write_text(known)
    direct = {"go": GO, "ssh": entries, "known_hosts_file": str(folder / "known_hosts")}
    settings = {"workers": 1, "upstream_timeouts": {}, "upstream_retries": 0, **changes}
    return serve("direct", sumdb="off", direct=direct, **settings)


def test_each_host_gets_its_own_key(
    tmp_path: Path, serve: Servers, hosts: tuple[SSHOrigin, SSHOrigin]
) -> None:
    one, two = hosts
    server = server_with(serve, tmp_path, [one.entry(), two.entry()], one.known + two.known)
    for module, host in ((ONE, one), (TWO, two)):
        assert server.get(f"{module}/@v/list").text == "v1.0.0\n"
        for extension in ("info", "mod", "zip"):
            assert server.get(f"{module}/@v/v1.0.0.{extension}").status_code == 200
        assert set(host.asked) == {"git-upload-pack '/team/lib'"}
    missing = server.get(f"{ONE}/nosub/@latest")
    assert (missing.status_code, "no matching versions" in missing.text) == (404, True)


def test_what_ssh_refuses_is_a_failure_that_says_so(
    tmp_path: Path, serve: Servers, hosts: tuple[SSHOrigin, SSHOrigin]
) -> None:
    one, two = hosts
    entries = [one.entry(key=two.login), two.entry()]
    wrong_host_key = two.known.split(" ", 1)[0] + " " + one.known.split(" ", 1)[1]
    server = server_with(serve, tmp_path, entries, one.known + wrong_host_key)

    answer = server.get(f"{ONE}/@v/list")
    assert (answer.status_code, "SSH refused the key" in answer.text) == (502, True), answer.text
    answer = server.get(f"{TWO}/@v/list")
    assert (answer.status_code, "direct.known_hosts_file" in answer.text) == (502, True)
    assert one.asked == two.asked == []

    # The file is read at each call: nothing has to be started again.
    (tmp_path / "known_hosts").write_text(two.known)
    assert server.get(f"{TWO}/@v/list").status_code == 200


def test_a_repository_that_is_not_there_and_a_host_that_is_down(
    tmp_path: Path, serve: Servers, hosts: tuple[SSHOrigin, SSHOrigin]
) -> None:
    one, two = hosts
    server = server_with(serve, tmp_path, [one.entry(), two.entry()], one.known + two.known)
    answer = server.get("127.0.0.1/team/none.git/@v/list")
    assert answer.status_code == 404, answer.text
    assert "does not appear to be a git repository" in answer.text
    two.close()
    answer = server.get(f"{TWO}/@v/list")
    assert (answer.status_code, "Connection refused" in answer.text) == (502, True), answer.text


def test_an_origin_may_name_its_ssh_address_itself(
    tmp_path: Path, serve: Servers, hosts: tuple[SSHOrigin, SSHOrigin]
) -> None:
    """A page over HTTPS says ssh://; without an entry for the host no key is shown to it."""
    one, _ = hosts
    authority = Authority(tmp_path, hosts=["git.corp.example"])
    pages = Origin(tmp_path / "pages", authority.server_context())
    proxy = Proxy("http", {"git.corp.example:443": pages.port})
    one.repository("team/named.git").commit({"go.mod": "module git.corp.example/named\n"}, "v1.0.0")
    address = f"ssh://{one.entry()['user']}@127.0.0.1:{one.port}/team/named.git"
    pages.imports["git.corp.example/named"] = f"git {address}"
    upstream = {"url": "direct", "proxy": proxy.url, "ca_file": str(authority.file)}
    try:
        for entries, status in (([one.entry()], 200), ([], 502)):
            (tmp_path / "known_hosts").write_text(one.known)
            direct = {
                "go": GO, "ssh": entries, "known_hosts_file": str(tmp_path / "known_hosts"),
            }  # fmt: skip
            server = serve([upstream], sumdb="off", direct=direct, workers=1)
            assert server.get("git.corp.example/named/@v/v1.0.0.zip").status_code == status
    finally:
        pages.close()
        proxy.close()
