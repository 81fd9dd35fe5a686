"""What preflight says of a host, from what look.sh printed there."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.ansible_plugin import ROOT, is_one_sentence, load

if TYPE_CHECKING:
    from pathlib import Path

host = load("filter/host.py")

LOOK = """\
systemd=yes
modhaven_nginx=yes
modhaven_app=yes
modhaven_pool=yes
keepalived=yes
update_ca_certificates=yes
python_apt=yes
nginx_version=1.22.1-9+deb12u3
package=nginx
listen=22 sshd
listen=443 nginx
listen=8443 nginx
trusts=MIIB0TCCAXegAwIBAgIUG2k
"""
DEBIAN = {"distribution": "Debian", "distribution_major_version": "12"}
PORTS = {"modhaven_backend_port": 8443, "edge_https_port": 443}


def problems(
    look: str = LOOK,
    *,
    groups: tuple[str, ...] = ("edges", "backends"),
    facts: dict[str, Any] | None = None,
    ports: dict[str, Any] | None = None,
    nginx_minimum: Any = "1.22",
    vip_address: str = "",
) -> list[str]:
    found: list[str] = host.host_problems(
        host.parse_look(look),
        "node1",
        groups=groups,
        facts=DEBIAN if facts is None else facts,
        ports=PORTS if ports is None else ports,
        nginx_minimum=nginx_minimum,
        vip_address=vip_address,
    )
    assert [text for text in found if not is_one_sentence(text)] == []
    assert [text for text in found if "node1" not in text] == []
    return found


def the_problem(look: str = LOOK, **options: Any) -> str:
    found = problems(look, **options)
    assert len(found) == 1, found
    return found[0]


# --- right ones


@pytest.mark.parametrize("groups", [("edges",), ("backends",), ("clients",), ("edges", "clients")])
def test_a_right_host_has_no_problem(groups: tuple[str, ...]) -> None:
    assert problems(groups=groups) == []


def test_debian_13_with_its_nginx_is_right() -> None:
    look = LOOK.replace("1.22.1-9+deb12u3", "1.26.3-3+deb13u1")
    assert problems(look, facts=DEBIAN | {"distribution_major_version": "13"}) == []


def test_a_bare_host_is_right() -> None:
    assert problems("systemd=yes\nnginx_version=1.22.1-9\nlisten=22 sshd\n") == []


def test_what_only_nginx_hosts_need_is_not_asked_of_a_client() -> None:
    assert problems("systemd=yes\nforeign=/etc/nginx/conf.d/x\n", groups=("clients",)) == []


# --- each rule


@pytest.mark.parametrize(
    ("system", "release"),
    [("Debian", "11"), ("Debian", "14"), ("Ubuntu", "24"), ("CentOS", "9"), ("Debian", "")],
)
def test_another_system_is_named(system: str, release: str) -> None:
    facts = {"distribution": system, "distribution_major_version": release}
    problem = the_problem(facts=facts)
    assert problem.startswith(f"node1 runs {system} {release}")
    assert "Debian 12 and 13" in problem


def test_a_system_that_ansible_does_not_know() -> None:
    assert "runs unknown" in the_problem(facts={})


@pytest.mark.parametrize("line", ["systemd=no\n", ""])
def test_a_host_without_systemd(line: str) -> None:
    assert "not run by systemd" in the_problem(LOOK.replace("systemd=yes\n", line))


@pytest.mark.parametrize("groups", [("clients",), ("edges",)])
def test_system_and_systemd_are_asked_of_every_host(groups: tuple[str, ...]) -> None:
    found = problems(
        "systemd=no\nnginx_version=1.22\n",
        groups=groups,
        facts={"distribution": "Ubuntu", "distribution_major_version": "24"},
    )
    assert len(found) == 2


@pytest.mark.parametrize("version", ["1.18.0-6", "1.21.9", "0.8", "1.9.15"])
def test_an_old_nginx_names_the_variable(version: str) -> None:
    problem = the_problem(LOOK.replace("1.22.1-9+deb12u3", version))
    assert f"nginx {version}" in problem
    assert "'preflight_nginx_minimum' asks for 1.22" in problem


@pytest.mark.parametrize("version", ["1.22", "1.22.0-1~bpo12+1", "1.100.0", "2.0"])
def test_a_new_nginx(version: str) -> None:
    assert problems(LOOK.replace("1.22.1-9+deb12u3", version)) == []


def test_a_minimum_that_yaml_read_as_a_number() -> None:
    assert "asks for 1.26" in the_problem(nginx_minimum=1.26)


@pytest.mark.parametrize("line", ["", "nginx_version=\n"])
def test_a_host_without_nginx_gets_debians(line: str) -> None:
    assert problems(LOOK.replace("nginx_version=1.22.1-9+deb12u3\n", line)) == []


def test_a_foreign_keepalived_is_named_where_it_would_be_replaced() -> None:
    look = LOOK + "keepalived_of_others=yes\n"
    assert "'vip_address'" in the_problem(look, vip_address="192.0.2.100")
    assert problems(look) == []
    assert problems(look, vip_address="192.0.2.100", groups=("backends",)) == []


def test_the_interface_is_the_one_that_holds_the_address() -> None:
    facts = {
        "interfaces": ["lo", "br-lan", "eth1"],
        "lo": {"device": "lo", "ipv4": {"address": "127.0.0.1"}},
        "br_lan": {
            "device": "br-lan",
            "ipv4": {"address": "192.0.2.1"},
            "ipv4_secondaries": [{"address": "192.0.2.2"}],
        },
        "eth1": {"device": "eth1"},
    }
    assert host.interface_of(facts, "192.0.2.1") == "br-lan"
    assert host.interface_of(facts, "192.0.2.2") == "br-lan"
    assert host.interface_of(facts, "192.0.2.3") == ""


def test_a_foreign_nginx_configuration_is_named_file_by_file() -> None:
    files = ["/etc/nginx/conf.d/shop.conf", "/etc/nginx/sites-enabled/wiki"]
    problem = the_problem(LOOK + "".join(f"foreign={path}\n" for path in files))
    assert f"({', '.join(files)})" in problem


def test_a_taken_port_names_variable_and_program() -> None:
    problem = the_problem(LOOK.replace("443 nginx\nlisten=8443 nginx", "443 haproxy"))
    assert "Port 443 of node1 is taken by haproxy" in problem
    assert "'edge_https_port'" in problem


@pytest.mark.parametrize("lines", [("apache2", "nginx"), ("nginx", "apache2")])
def test_a_port_that_nginx_shares_with_another_program(lines: tuple[str, str]) -> None:
    look = "systemd=yes\nnginx_version=1.22.1\n"
    look += "".join(f"listen=443 {program}\n" for program in lines)
    assert "Port 443 of node1 is taken by apache2" in the_problem(look)


def test_a_listener_whose_program_nobody_could_see() -> None:
    look = "systemd=yes\nnginx_version=1.22.1\nlisten=443 another program\n"
    assert "taken by another program" in the_problem(look)


def test_ports_may_be_strings() -> None:
    look = LOOK.replace("8443 nginx", "8443 java")
    assert "'modhaven_backend_port'" in the_problem(look, ports={"modhaven_backend_port": "8443"})


def test_a_port_that_is_part_of_a_longer_one_is_free() -> None:
    look = "systemd=yes\nnginx_version=1.22.1\nlisten=4430 java\nlisten=44 java\n"
    assert problems(look) == []


def test_all_problems_are_reported_at_once() -> None:
    look = "systemd=no\nnginx_version=1.18.0\nforeign=/etc/nginx/nginx.conf\n"
    look += "listen=443 haproxy\nlisten=8443 java\n"
    found = problems(look, facts={"distribution": "Ubuntu", "distribution_major_version": "24"})
    parts = ("Ubuntu", "systemd", "1.18.0", "/etc/nginx/nginx.conf", "Port 8443", "Port 443")
    assert len(found) == len(parts)
    for part in parts:
        assert [part in text for text in found].count(True) == 1, part


# --- strange output


@pytest.mark.parametrize(
    "look", ["", "\n\n", "Welcome to node1!\n", "=\n", "listen=\nforeign=\n", "listen=443\n"]
)
def test_strange_output_does_not_crash(look: str) -> None:
    assert problems(look) != []


@pytest.mark.parametrize("version", ["yes", "no", "unknown", "~", "1:1.22.1", "99999999999999999"])
def test_strange_versions_do_not_crash(version: str) -> None:
    assert isinstance(problems(f"systemd=yes\nnginx_version={version}\n"), list)


def test_look_is_parsed_into_truths_and_lists() -> None:
    seen = host.parse_look(
        "a=yes\nb=no\nc=1=2\nforeign=/x\nlisten=1 a\nlisten=2 b c\nnoise\npackage=d\ntrusts=e=\n"
    )
    assert seen == {
        "a": True,
        "b": False,
        "c": "1=2",
        "foreign": ["/x"],
        "listen": ["1 a", "2 b c"],
        "package": ["d"],
        "trusts": ["e="],
    }


# --- is_bare


@pytest.mark.parametrize(
    ("groups", "vip", "missing", "bare"),
    [
        (("edges", "backends", "clients"), "192.0.2.100", None, False),
        (("edges",), "192.0.2.100", "keepalived", True),
        (("edges",), "", "keepalived", False),
        (("backends",), "192.0.2.100", "keepalived", False),
        (("edges",), "", "modhaven_nginx", True),
        (("backends",), "", "modhaven_nginx", True),
        (("backends",), "", "modhaven_app", True),
        (("edges",), "", "modhaven_app", True),
        (("clients",), "", "modhaven_app", False),
        (("edges",), "", "modhaven_pool", True),
        (("backends",), "", "modhaven_pool", False),
        (("clients",), "", "update_ca_certificates", True),
        (("edges",), "", "update_ca_certificates", False),
        (("clients",), "", "python_apt", True),
        (("clients",), "", "modhaven_nginx", False),
    ],
)
def test_a_host_is_bare_when_it_lacks_what_its_roles_install(
    groups: tuple[str, ...], vip: str, missing: str | None, *, bare: bool
) -> None:
    seen = host.parse_look(LOOK.replace(f"{missing}=yes", f"{missing}=no"))
    assert host.is_bare(seen, groups, vip) is bare


# --- look.sh itself


def look_here(tools: Path) -> dict[str, Any]:
    """What look.sh prints with `tools` before everything else on the path."""
    result = subprocess.run(
        ["/bin/sh", str(ROOT / "roles/preflight/files/look.sh")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )
    assert result.stderr == ""
    seen: dict[str, Any] = host.parse_look(result.stdout)
    return seen


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_look_reports_ports_and_programs(tmp_path: Path) -> None:
    tool(
        tmp_path,
        "ss",
        r"""cat <<'END'
LISTEN 0 511 0.0.0.0:443 0.0.0.0:* users:(("nginx",pid=7,fd=6),("nginx",pid=8,fd=6))
LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=1,fd=4))
LISTEN 0 128 127.0.0.1:9000 0.0.0.0:*
END""",
    )
    assert look_here(tmp_path)["listen"] == ["443 nginx", "22 sshd", "9000 another program"]


def test_look_prefers_the_installed_nginx(tmp_path: Path) -> None:
    tool(tmp_path, "dpkg-query", "echo nginx_version=1.22.1-9")
    tool(tmp_path, "apt-cache", "echo '  Candidate: 1.26.3-3'")
    assert look_here(tmp_path)["nginx_version"] == "1.22.1-9"


def test_look_gives_the_version_of_an_nginx_that_is_installed(tmp_path: Path) -> None:
    tool(tmp_path, "dpkg-query", "echo nginx_version=1.26.3-3")
    assert look_here(tmp_path)["nginx_version"] == "1.26.3-3"


def test_look_names_the_packages_that_are_installed_not_those_that_were(tmp_path: Path) -> None:
    # The last argument is the format: only one of the two asks for the state.
    tool(tmp_path, "dpkg-query", """case "$*" in *Abbrev*) printf 'ii a\nrc b\nii  c-d\n';; esac""")
    assert look_here(tmp_path)["package"] == ["a", "c-d"]


@pytest.mark.parametrize("answer", ["exit 1", "echo nginx_version="])
def test_look_gives_no_version_where_dpkg_knows_the_name_at_most(
    tmp_path: Path, answer: str
) -> None:
    # "unknown ok not-installed": some installed package mentions nginx; dpkg-query succeeds then.
    tool(tmp_path, "dpkg-query", answer)
    assert "nginx_version" not in look_here(tmp_path)


def test_ansible_finds_the_filters() -> None:
    names = {"host_problems", "interface_of", "is_bare", "parse_look"}
    assert set(host.FilterModule().filters()) == names
