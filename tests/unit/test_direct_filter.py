"""What preflight says of `direct`: every rule, in one sentence each, and never a secret."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.ansible_plugin import is_one_sentence, load

if TYPE_CHECKING:
    from pathlib import Path

direct = load("filter/direct.py")

HOST = "git.corp.example"
# Always the same: names of tests are made of it.
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


KEY = PRIVATE.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.OpenSSH,
    serialization.NoEncryption(),
).decode()
PUBLIC = (
    PRIVATE.public_key()
    .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    .decode()
)
HTTPS = {"host": HOST, "user": "modhaven", "password": "s3cret-of-https"}
SSH = {"host": HOST, "key": KEY, "host_key": f"{HOST} {PUBLIC}"}
SECRETS = ("s3cret", *KEY.splitlines()[1:-1])


def problems(**variables: Any) -> list[str]:
    """The sentences for one backend with these variables, none of which may tell a secret."""
    found: list[str] = direct.direct_problems({"backends": ["backend1"]}, {"backend1": variables})
    assert [text for text in found if not is_one_sentence(text)] == []
    assert [text for text in found if any(secret in text for secret in SECRETS)] == []
    return found


def the_problem(**variables: Any) -> str:
    found = problems(**variables)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    "upstreams",
    [
        "direct",
        "https://goproxy.cn|https://goproxy.io,direct",
        "direct|https://goproxy.cn",
        "https://goproxy.cn, direct",
        [{"url": "https://goproxy.cn"}, {"url": "direct", "modules": ["*.corp.example"]}],
    ],
)
def test_direct_is_found_in_either_form_of_the_chain(upstreams: object) -> None:
    assert direct.uses_direct(upstreams)


@pytest.mark.parametrize(
    "upstreams",
    [
        "https://goproxy.cn|https://goproxy.io|https://proxy.golang.org",
        "https://direct.corp.example,https://goproxy.cn/direct",
        "off",
        "",
        None,
        True,
        [],
        ["direct"],
        [{"url": "https://goproxy.cn", "name": "direct"}],
    ],
)
def test_direct_is_not_found_where_it_is_not(upstreams: object) -> None:
    assert not direct.uses_direct(upstreams)


def test_nothing_said_is_right() -> None:
    assert problems() == []
    assert direct.direct_problems({}, {}) == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"user": "gerrit"},
        {"key": KEY.strip()},
        {"host_key": f"{HOST},192.0.2.9 {PUBLIC}"},
        {"host_key": f"# {HOST}:22 SSH-2.0\n{HOST} {PUBLIC}\nother {PUBLIC} by hand\n"},
        {"host_key": f"|1|c2FsdA==|aGFzaA== {PUBLIC}"},
        {"port": 2222, "host_key": f"[{HOST}]:2222 {PUBLIC}"},
        {"port": "22"},
    ],
)
def test_a_right_entry_of_ssh(changes: dict[str, str]) -> None:
    assert problems(backend_direct_ssh=[SSH | changes], backend_direct_https=[HTTPS]) == []


@pytest.mark.parametrize(
    ("variable", "entry"), [("backend_direct_https", HTTPS), ("backend_direct_ssh", SSH)]
)
@pytest.mark.parametrize("nothing", [None, "", " \n", ...])
def test_a_missing_field_is_named_with_its_variable_and_host(
    variable: str, entry: dict[str, str], nothing: object
) -> None:
    for field in set(entry) - {"host"}:
        broken: dict[str, object] = {**entry, field: nothing}
        if nothing is ...:
            del broken[field]
        problem = the_problem(**{variable: [broken]})
        assert problem == f"'{variable}' has no '{field}' for {HOST}: add it there."


@pytest.mark.parametrize("variable", ["backend_direct_https", "backend_direct_ssh"])
@pytest.mark.parametrize(
    "host", ["", None, f"https://{HOST}", f"{HOST}:22", f"{HOST}/team", "a b", "-o", HOST.upper()]
)
def test_a_host_that_is_no_name(variable: str, host: object) -> None:
    problem = the_problem(**{variable: [HTTPS | SSH | {"host": host}]})
    assert problem.startswith(f"'{variable}' has the 'host' ")


@pytest.mark.parametrize("variable", ["backend_direct_https", "backend_direct_ssh"])
def test_a_host_with_two_entries(variable: str) -> None:
    entry = HTTPS | SSH
    assert f"names {HOST} more than once" in the_problem(**{variable: [entry, entry]})


@pytest.mark.parametrize("variable", ["backend_direct_https", "backend_direct_ssh"])
@pytest.mark.parametrize("value", ["text", {"host": HOST}, 7, ["text"], [None], [[]]])
def test_what_is_no_list_of_mappings(variable: str, value: object) -> None:
    assert the_problem(**{variable: value}).startswith(f"'{variable}' ")


@pytest.mark.parametrize("field", ["user", "password"])
@pytest.mark.parametrize("value", ["two s3cret", "s3cret\tx", '"s3cret"', "#s3cret", "s3cret\n"])
def test_what_a_netrc_file_cannot_carry(field: str, value: str) -> None:
    problem = the_problem(backend_direct_https=[HTTPS | {field: value}])
    assert problem.startswith(f"The '{field}' of {HOST} in 'backend_direct_https' has a blank")


@pytest.mark.parametrize("key", ["/root/.ssh/id_ed25519", PUBLIC, "s3cret"])
def test_a_key_that_is_none(key: str) -> None:
    problem = the_problem(backend_direct_ssh=[SSH | {"key": key}])
    assert problem.startswith(f"The 'key' of {HOST} in 'backend_direct_ssh' is no private key")


@pytest.mark.parametrize("form", ["RFC4716", "PKCS8", "PEM"])
def test_a_key_with_a_passphrase(form: str, tmp_path: Path) -> None:
    key = ssh_keygen(tmp_path, "-t", "ecdsa", "-m", form, "-N", "s3cret")
    assert "has a passphrase" in the_problem(backend_direct_ssh=[SSH | {"key": key}])


@pytest.mark.parametrize("form", ["RFC4716", "PKCS8", "PEM"])
def test_a_key_without_one(form: str, tmp_path: Path) -> None:
    key = ssh_keygen(tmp_path, "-t", "ecdsa", "-m", form, "-N", "")
    assert problems(backend_direct_ssh=[SSH | {"key": key}]) == []


def ssh_keygen(folder: Path, *options: str) -> str:
    """The private key that ssh-keygen makes (RFC4716 stands for OpenSSH's own format)."""
    path = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-f", path, *options], check=True)
    return path.read_text()


@pytest.mark.parametrize("key", ["-----BEGIN PRIVATE KEY-----\n%%%\n-----END PRIVATE KEY-----"])
def test_rubbish_between_the_lines_of_a_key_is_no_crash(key: str) -> None:
    assert problems(backend_direct_ssh=[SSH | {"key": key}]) == []


@pytest.mark.parametrize(
    "host_key",
    [
        PUBLIC,
        f"other.corp.example {PUBLIC}",
        f"{HOST} ssh-ed25519",
        f"# {HOST} {PUBLIC}",
        "SHA256:x",
    ],
)
def test_a_host_key_that_is_not_the_hosts(host_key: str) -> None:
    problem = the_problem(backend_direct_ssh=[SSH | {"host_key": host_key}])
    assert f"'ssh-keyscan {HOST}' prints" in problem


def test_the_host_key_of_a_port_is_asked_for_with_it() -> None:
    problem = the_problem(backend_direct_ssh=[SSH | {"port": 2222}])
    assert f"'ssh-keyscan -p 2222 {HOST}' prints" in problem


@pytest.mark.parametrize("port", [0, 65536, -1, "ssh", None, True, []])
def test_a_port_that_is_none(port: object) -> None:
    assert "The 'port' of " in the_problem(backend_direct_ssh=[SSH | {"port": port}])


@pytest.mark.parametrize("user", ["-oProxyCommand=x", "git@x", "a b", "é"])
def test_a_user_that_is_none(user: str) -> None:
    assert "is no user name" in the_problem(backend_direct_ssh=[SSH | {"user": user}])


@pytest.mark.parametrize("vcs", ["*:git", "git.corp.example:git|hg,*:off", "*:all, x:git"])
def test_a_right_vcs(vcs: str) -> None:
    assert problems(backend_direct_vcs=vcs) == []


@pytest.mark.parametrize(
    "vcs", ["", "git", "*:", "*:git|", ":git", "*:git,,", "*:cvs", None, ["*:git"]]
)
def test_a_wrong_vcs(vcs: object) -> None:
    assert the_problem(backend_direct_vcs=vcs).startswith("'backend_direct_vcs' is ")


@pytest.mark.parametrize("variable", ["backend_direct_processes", "backend_direct_cache_max_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, 1 << 61, "many", None, True, []])
def test_a_wrong_number(variable: str, value: object) -> None:
    assert the_problem(**{variable: value}).startswith(f"'{variable}' is ")


def test_what_all_backends_share_is_said_once() -> None:
    hostvars = {name: {"backend_direct_processes": 0} for name in ("backend1", "backend2")}
    assert len(direct.direct_problems({"backends": list(hostvars)}, hostvars)) == 1


def test_ansible_finds_the_filters() -> None:
    assert set(direct.FilterModule().filters()) == {"direct_problems", "uses_direct"}
