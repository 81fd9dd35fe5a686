"""The deployment's authority and its hosts' certificates, with the real openssl."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.testing import patch_module_args
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.unit.ansible_plugin import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

host_certificates = load("modules/host_certificates.py")

NAMES = ["edge1", "192.0.2.11", "localhost", "2001:db8::11", "goproxy.corp.example"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the module may catch it."""


class Controller:
    """The authority's directory, and the module run on it as Ansible would."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capsys = capsys

    def run(
        self,
        hosts: dict[str, list[str]] | None = None,
        *,
        check_mode: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        arguments = {
            "directory": str(self.directory),
            "hosts": {"edge1": NAMES} if hosts is None else hosts,
            "_ansible_check_mode": check_mode,
            **options,
        }
        self.capsys.readouterr()
        with patch_module_args(arguments), pytest.raises(SystemExit):
            host_certificates.main()
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return result

    def issued(self, hosts: dict[str, list[str]] | None = None, **options: Any) -> list[str]:
        """The names a run issues certificates for; it must not fail."""
        result = self.run(hosts, **options)
        assert not result.get("failed"), result
        names: list[str] = result["issued"]
        assert result["changed"] is bool(names)
        return names

    def path(self, host: str, kind: str) -> Path:
        return self.directory / "hosts" / f"{host}.{kind}"

    def certificate(self, host: str = "edge1") -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.path(host, "crt").read_bytes())

    def authority(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.directory / "ca.crt").read_bytes())

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in sorted(self.directory.rglob("*"))
            if path.is_file()
        }

    def assert_pair(self, host: str = "edge1") -> None:
        """Key and certificate belong together and chain to the authority."""
        key = load_pem_private_key(self.path(host, "key").read_bytes(), password=None)
        certificate = self.certificate(host)
        assert key.public_key() == certificate.public_key()
        certificate.verify_directly_issued_by(self.authority())


@pytest.fixture
def controller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Controller:
    return Controller(tmp_path / "state" / "pki", capsys)


@pytest.fixture
def deployed(controller: Controller) -> Controller:
    assert controller.issued() == ["edge1"]
    return controller


# --- creation


def test_the_authority_may_sign_certificates_and_nothing_else(deployed: Controller) -> None:
    authority = deployed.authority()
    assert authority.subject.rfc4514_string() == "CN=modhaven authority"
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    authority.verify_directly_issued_by(authority)


def test_name_and_days_of_the_authority(controller: Controller) -> None:
    controller.issued(authority="Corp", ca_days=1000)
    authority = controller.authority()
    assert authority.subject.rfc4514_string() == "CN=Corp authority"
    assert authority.not_valid_after_utc - authority.not_valid_before_utc == timedelta(days=1000)


def test_a_certificate_is_for_servers_and_clients(deployed: Controller) -> None:
    extensions = deployed.certificate().extensions
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature


def test_a_certificate_has_its_names_as_dns_and_its_addresses_as_ip(deployed: Controller) -> None:
    found = deployed.certificate().extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert found.value.get_values_for_type(x509.DNSName) == [
        "edge1",
        "localhost",
        "goproxy.corp.example",
    ]
    assert found.value.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("192.0.2.11"),
        ipaddress.ip_address("2001:db8::11"),
    ]


def test_a_certificate_has_a_p256_key_and_the_days_asked_for(controller: Controller) -> None:
    controller.issued(days=90)
    certificate = controller.certificate()
    key = certificate.public_key()
    assert isinstance(key, EllipticCurvePublicKey)
    assert isinstance(key.curve, SECP256R1)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(days=90)
    assert abs(certificate.not_valid_before_utc - datetime.now(UTC)) < timedelta(minutes=5)
    controller.assert_pair()


def test_a_host_name_longer_than_a_common_name(controller: Controller) -> None:
    host = ".".join(["a" * 40] * 3)
    assert controller.issued({host: [host]}) == [host]
    assert controller.certificate(host).subject.rfc4514_string() == f"CN={host[:64]}"


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_accepts_it_for_both_sides(deployed: Controller, purpose: str) -> None:
    subprocess.run(
        [
            *("openssl", "verify", "-x509_strict", "-purpose", purpose),
            *("-CAfile", str(deployed.directory / "ca.crt")),
            *("-verify_hostname", "goproxy.corp.example", str(deployed.path("edge1", "crt"))),
        ],
        check=True,
        capture_output=True,
    )


def test_nobody_else_can_read_the_keys(deployed: Controller) -> None:
    for path in (deployed.directory / "ca.key", deployed.path("edge1", "key")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((deployed.directory / "hosts").stat().st_mode) & 0o077 == 0


def test_nothing_but_the_named_files_is_left(deployed: Controller) -> None:
    assert set(deployed.files()) == {
        "ca.crt",
        "ca.key",
        "hosts/edge1.crt",
        "hosts/edge1.key",
        "hosts/edge1.names",
    }


def test_serial_numbers_differ(controller: Controller) -> None:
    controller.issued({"edge1": ["edge1"], "edge2": ["edge2"]})
    first, second = (controller.certificate(host).serial_number for host in ("edge1", "edge2"))
    assert first != second
    assert min(first, second) > 2**60


# --- idempotence


def test_a_second_run_changes_nothing(deployed: Controller) -> None:
    before = deployed.files()
    assert deployed.issued() == []
    assert deployed.files() == before


def test_a_new_host_leaves_the_others_alone(deployed: Controller) -> None:
    before = deployed.files()
    assert deployed.issued({"edge1": NAMES, "edge2": ["edge2"]}) == ["edge2"]
    after = deployed.files()
    for name in ("ca.crt", "ca.key", "hosts/edge1.crt", "hosts/edge1.key"):
        assert after[name] == before[name], name
    deployed.assert_pair("edge2")


# --- what is issued again


@pytest.mark.parametrize("names", [[*NAMES, "192.0.2.100"], NAMES[:-1], ["edge1"]])
def test_other_names(deployed: Controller, names: list[str]) -> None:
    authority = deployed.authority()
    assert deployed.issued({"edge1": names}) == ["edge1"]
    deployed.assert_pair()
    assert deployed.authority() == authority
    assert deployed.issued({"edge1": names}) == []


def test_near_its_end(controller: Controller) -> None:
    controller.issued(days=20, renew_days=10)
    before = controller.certificate().serial_number
    assert controller.issued(renew_days=19) == []
    assert controller.issued(renew_days=21) == ["edge1"]
    assert controller.certificate().serial_number != before
    assert controller.issued() == []


def test_of_another_authority(deployed: Controller) -> None:
    for name in ("ca.crt", "ca.key"):
        (deployed.directory / name).unlink()
    other = deployed.directory / "other"
    Controller(other, deployed.capsys).issued()
    for name in ("ca.crt", "ca.key"):
        (other / name).rename(deployed.directory / name)
    authority = deployed.authority()
    assert deployed.issued() == ["edge1"]
    assert deployed.authority() == authority
    deployed.assert_pair()
    assert deployed.issued() == []


def test_of_an_authority_that_is_gone(deployed: Controller) -> None:
    for name in ("ca.crt", "ca.key"):
        (deployed.directory / name).unlink()
    assert deployed.issued() == ["edge1"]
    deployed.assert_pair()


def test_an_authority_without_its_key_is_refused_and_left_as_it_is(deployed: Controller) -> None:
    (deployed.directory / "ca.key").unlink()
    before = deployed.files()
    result = deployed.run({"edge2": ["edge2"]})
    assert result["failed"]
    assert "put the key back" in result["msg"]
    assert deployed.files() == before


@pytest.mark.parametrize("kind", ["key", "crt", "names"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half"])
def test_a_damaged_file(deployed: Controller, kind: str, damage: str) -> None:
    path = deployed.path("edge1", kind)
    whole = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(whole[: len(whole) // 2] if damage == "half" else b"")
    assert deployed.issued() == ["edge1"]
    deployed.assert_pair()
    assert deployed.issued() == []


def test_a_key_of_another_certificate(deployed: Controller) -> None:
    deployed.issued({"edge1": NAMES, "edge2": ["edge2"]})
    key = deployed.path("edge2", "key").read_bytes()
    deployed.path("edge1", "key").write_bytes(key)
    assert deployed.issued() == ["edge1"]
    deployed.assert_pair()


# --- runs cut short


@contextlib.contextmanager
def killed_after(
    moves: int, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Kill what the block runs when it has renamed so many files."""
    path_type = type(controller.directory)
    original = path_type.replace
    done = 0

    def replace(source: Path, target: Path) -> Path:
        nonlocal done
        if done == moves:
            raise Killed
        done += 1
        return original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(path_type, "replace", replace)
        with pytest.raises(Killed):
            yield


@pytest.mark.parametrize(
    ("earlier", "moves"), [(True, n) for n in range(3)] + [(False, n) for n in range(5)]
)
def test_a_run_killed_between_two_files_is_completed(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, *, earlier: bool, moves: int
) -> None:
    if earlier:
        controller.issued({"edge1": ["edge1"]})
    with killed_after(moves, controller, monkeypatch):
        controller.run()
    # Whatever is wanted next, what the next run leaves is a pair, also with the names of before.
    assert not controller.run({"edge1": ["edge1"]}).get("failed")
    controller.assert_pair()
    assert not controller.run().get("failed")
    controller.assert_pair()
    assert controller.issued() == []


def test_a_half_written_serial_file_does_not_stop_the_next_certificate(
    deployed: Controller,
) -> None:
    (deployed.directory / "ca.srl").write_text("")
    assert deployed.issued({"edge2": ["edge2"]}) == ["edge2"]


# --- a new authority


def trusted(controller: Controller) -> list[x509.Certificate]:
    """Whom hosts trust at this moment: what the roles install."""
    names = ("ca.crt", "next.crt", "old.crt")
    paths = [
        controller.directory / name for name in names if (controller.directory / name).exists()
    ]
    return [x509.load_pem_x509_certificate(path.read_bytes()) for path in paths]


def test_a_new_authority_comes_in_steps_between_which_everybody_trusts_everybody(
    deployed: Controller,
) -> None:
    old = deployed.authority()
    first = deployed.certificate()

    assert deployed.run(rotation="begin")["changed"]
    assert deployed.authority() == old
    assert deployed.certificate() == first
    assert old in trusted(deployed)
    (new,) = (one for one in trusted(deployed) if one != old)

    result = deployed.run(rotation="switch")
    assert result["issued"] == ["edge1"]
    assert deployed.authority() == new
    deployed.assert_pair()
    assert sorted(map(repr, trusted(deployed))) == sorted(map(repr, [new, old]))

    assert deployed.run(rotation="finish")["changed"]
    assert trusted(deployed) == [new]
    assert deployed.issued() == []
    assert set(deployed.files()) == {
        *("ca.crt", "ca.key"),
        *(f"hosts/edge1.{kind}" for kind in ("crt", "key", "names")),
    }
    assert stat.S_IMODE((deployed.directory / "ca.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["begin", "switch", "finish"])
def test_a_step_that_was_made_is_not_made_again(deployed: Controller, step: str) -> None:
    for earlier in ("begin", "switch", "finish"):
        deployed.run(rotation=earlier)
        if earlier == step:
            break
    before = deployed.files()
    if step != "finish":
        # That one ends a rotation; another "begin" would be the next one.
        assert not deployed.run(rotation="begin")["changed"]
    assert not deployed.run(rotation=step)["changed"]
    assert deployed.files() == before


@pytest.mark.parametrize("step", ["switch", "finish"])
def test_without_a_rotation_under_way_there_is_nothing_to_switch_or_finish(
    deployed: Controller, step: str
) -> None:
    before = deployed.files()
    assert not deployed.run(rotation=step)["changed"]
    assert deployed.files() == before


def test_what_is_not_switched_yet_is_not_finished(deployed: Controller) -> None:
    deployed.run(rotation="begin")
    before = deployed.files()
    assert not deployed.run(rotation="finish")["changed"]
    assert deployed.files() == before


@pytest.mark.parametrize("moves", range(3))
def test_a_switch_killed_between_two_files_is_completed(
    deployed: Controller, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    deployed.run(rotation="begin")
    before = trusted(deployed)
    with killed_after(moves, deployed, monkeypatch):
        deployed.run(rotation="switch")
    # site.yml may come between.
    assert not deployed.run().get("failed")
    deployed.assert_pair()
    assert set(trusted(deployed)) == set(before)
    assert not deployed.run(rotation="switch").get("failed")
    deployed.assert_pair()
    assert set(trusted(deployed)) == set(before)
    assert deployed.authority() != before[0]


def test_check_mode_changes_no_authority(deployed: Controller) -> None:
    before = deployed.files()
    assert deployed.run(rotation="begin", check_mode=True)["changed"]
    assert deployed.files() == before


def test_an_authority_near_its_end_is_named_with_what_to_do(controller: Controller) -> None:
    assert controller.issued(ca_days=300, days=90) == ["edge1"]
    assert "warnings" not in controller.run(days=90)
    warnings = controller.run(days=397)["warnings"]
    assert "rotate_certificates.yml -e new_authority=true" in str(warnings)


# --- check mode and errors


def test_check_mode_on_nothing_writes_nothing(controller: Controller) -> None:
    result = controller.run(check_mode=True)
    assert (result["changed"], result["issued"]) == (True, ["edge1"])
    assert not controller.directory.exists()
    assert not controller.directory.parent.exists()


def test_check_mode_tells_what_would_be_issued(deployed: Controller) -> None:
    before = deployed.files()
    assert deployed.run(check_mode=True)["changed"] is False
    result = deployed.run({"edge1": ["edge1"], "edge2": ["edge2"]}, check_mode=True)
    assert result["issued"] == ["edge1", "edge2"]
    assert deployed.files() == before


def test_a_missing_openssl_is_one_clear_sentence(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = controller.run()
    assert result["failed"] is True
    assert "install openssl" in result["msg"]


def test_openssl_s_own_words_are_in_the_message(deployed: Controller) -> None:
    before = deployed.files()
    result = deployed.run({"edge1": ["not, a name"]})
    assert result["failed"] is True
    assert "openssl x509 failed: " in result["msg"]
    assert deployed.files() == before
