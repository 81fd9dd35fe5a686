"""New keys, certificates and authorities on a live cluster: nobody is refused at any moment."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster, golang
from tests.e2e.live import LAB, under_load
from tests.e2e.playbook import play
from tests.lab import faults, remote
from tests.lab.inventory import ROOT, lab

if TYPE_CHECKING:
    from tests.e2e.conftest import Say

PLAYBOOK = "playbooks/rotate_certificates.yml"
NEW_AUTHORITY = ("-e", "new_authority=true")
PKI = ROOT / LAB / ".state/pki"
pytestmark = pytest.mark.timeout(900)


def served() -> dict[str, str]:
    """The certificate that each edge and backend shows."""
    ports = {"edges": 443, "backends": 8443}
    return {
        host.name: ssl.get_server_certificate((host.address, port))
        for group, port in ports.items()
        for host in lab().group(group)
    }


def trusted(host: str) -> str:
    return remote.run(host, "cat", "/etc/modhaven/pki/ca.crt").stdout.strip()


def test_a_new_authority_waits_for_all_fails_no_request_and_ends_the_old_one(
    say: Say,
) -> None:
    cluster.wait_until_whole()
    old, before = (PKI / "ca.crt").read_text(), served()

    # Whoever missed the first step would be shut out by the second: it stops before that.
    dead = cluster.backups()[0].name
    with faults.host_stopped(dead):
        run = play(PLAYBOOK, LAB, *NEW_AUTHORITY)
        assert not run.ok
        assert f"{dead} did not answer in the step 'trust both'" in " ".join(run.output.split())
        assert (PKI / "ca.crt").read_text() == old

        # It goes on where it stopped, without the dead one, which the recap names.
        options = (*NEW_AUTHORITY, "-e", f"pass_over={dead}")
        _, said = under_load(PLAYBOOK, say, *options, succeeds=False)
        assert f"Passed over, as they did not answer: {dead}." in " ".join(said.split())

    again = play("site.yml", LAB)
    assert again.ok, again.output
    assert dead in again.changed()

    new, after = (PKI / "ca.crt").read_text(), served()
    assert new != old
    assert all(after[name] != before[name] for name in before)
    for host in after:
        assert trusted(host) == new.strip()
    assert not (PKI / "old.crt").exists()
    assert not (PKI / "next.crt").exists()
    bundle = remote.run(cluster.client(), "cat", cluster.CA_FILE).stdout
    assert new.strip() in bundle
    assert old.strip() not in bundle
    cluster.wait_until_whole()
    build = golang.build(cluster.client())
    assert build.ok, build.output


def test_new_certificates_of_the_same_authority_fail_no_request(say: Say) -> None:
    cluster.wait_until_whole()
    authority, before = (PKI / "ca.crt").read_text(), served()
    under_load(PLAYBOOK, say)
    after = served()
    assert all(after[name] != before[name] for name in before)
    assert (PKI / "ca.crt").read_text() == authority
    cluster.wait_until_whole()
