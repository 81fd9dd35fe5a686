"""What an operator is promised of every client: go asks the deployment, wherever it is run."""

from __future__ import annotations

import ipaddress
import json

import pytest
from tests.e2e import hosts
from tests.e2e.hosts import address, connect, effective, names, output
from tests.lab.inventory import lab

EDGES = names("edges")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
VARIABLES = ("GOPROXY", "GOSUMDB", "GOPRIVATE", "GONOSUMDB")
GO_ENV = f"go env -json {' '.join(VARIABLES)}"

pytestmark = pytest.mark.parametrize("client", names("clients"))


def entrances() -> list[str]:
    """Give the addresses a client goes through, in its order: the VIP, then each edge."""
    return [*filter(None, [hosts.vip()]), *(address(edge) for edge in EDGES)]


def expected_environment(client: str) -> dict[str, str]:
    """Give the go environment the inventory means, made here from its words alone."""
    own, edge = effective(client), effective(EDGES[0])
    scheme = own["client_scheme"]
    port = int(edge["edge_https_port" if scheme == "https" else "edge_http_port"])
    suffix = "" if port == {"https": 443, "http": 80}[scheme] else f":{port}"
    urls = [f"{scheme}://{bracketed(where)}{suffix}" for where in entrances()]
    if hosts.vip():
        urls.insert(1, f"{urls[0]}/")
    fallback = own["client_public_fallback"]
    chain = "|".join(urls + ([fallback] if fallback else []))
    return {
        # An inventory may name a chain of its own.
        "GOPROXY": lab().hosts[client].variables.get("client_goproxy", chain),
        "GOSUMDB": own["client_gosumdb"],
        "GOPRIVATE": ",".join(own["client_goprivate"]),
        "GONOSUMDB": ",".join(own["client_goprivate"] + own["modhaven_nosumdb"]),
    }


def bracketed(where: str) -> str:
    try:
        return f"[{where}]" if ipaddress.ip_address(where).version == 6 else where
    except ValueError:
        return where


def person(client: str) -> str:
    """Give a user who is not root: the one that Ansible logs in as."""
    return str(lab().hosts[client].variables.get("ansible_user", "nobody"))


def test_go_uses_the_deployment_in_a_login_shell(client: str) -> None:
    shown = output(client, f"su --login {person(client)} --command %s", GO_ENV)
    assert json.loads(shown) == expected_environment(client)


def test_go_uses_the_deployment_in_a_command_over_plain_ssh(client: str) -> None:
    assert json.loads(output(client, GO_ENV, sudo=False)) == expected_environment(client)


def test_go_uses_the_deployment_in_a_service(client: str) -> None:
    # systemd gives a service no HOME, and go wants one.
    run = "systemd-run --pipe --wait --quiet --collect --setenv=HOME=/root"
    assert json.loads(output(client, f"{run} {GO_ENV}")) == expected_environment(client)


def test_authority_is_among_those_the_machine_trusts(client: str) -> None:
    assert output(client, f"cat {BUNDLE}").count(hosts.authority().read_text().strip()) == 1


def served_over_tls() -> list[str]:
    own = effective(EDGES[0])
    return entrances() if own["edge_https"] and not own["edge_tls_certificate"] else []


@pytest.mark.parametrize("where", served_over_tls())
def test_served_certificate_verifies_with_the_machines_bundle(client: str, where: str) -> None:
    port = effective(EDGES[0])["edge_https_port"]
    done = connect(client).run(
        f"openssl s_client -CAfile {BUNDLE} -verify_return_error -verify_ip {where}"
        f" -brief -connect {where}:{port} < /dev/null"
    )
    assert done.rc == 0, done.stderr
    assert "Verification: OK" in done.stderr


@pytest.mark.parametrize("where", served_over_tls())
def test_programs_reach_the_entrance_without_being_told_whom_to_trust(
    client: str, where: str
) -> None:
    port = effective(EDGES[0])["edge_https_port"]
    url = f"https://{bracketed(where)}:{port}/healthz"
    # curl where the machine has it; Python, which Ansible needs there, verifies the same way.
    python = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).status)"
    shown = output(
        client,
        "if command -v curl > /dev/null; then"
        " curl --silent --max-time 10 --output /dev/null --write-out '%%{http_code}' %s;"
        " else python3 -c %s %s; fi",
        url,
        python,
        url,
    )
    assert shown.strip() == "200"
