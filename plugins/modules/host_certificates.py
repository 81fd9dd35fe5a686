#!/usr/bin/python
"""Ansible module: a certificate authority on the controller, and one certificate a host."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_certificates
short_description: Keep a certificate authority and one certificate for each host on the controller
description:
  - Creates C(ca.key) and C(ca.crt) in I(directory) when there are none, and never replaces them.
  - Issues C(hosts/NAME.key) and C(hosts/NAME.crt) (EC P-256, for TLS servers and clients) where
    there is none, where its names differ from those asked for, where its key is another one's,
    where it does not chain to the authority, or where it ends within I(renew_days).
  - Files are renamed into place, so that a run cut short leaves a whole certificate or the old one.
  - Warns when the authority itself ends before a certificate issued now would.
  - A new authority comes in three steps, I(rotation). Between any two of them, whoever trusts
    C(ca.crt) and, where they exist, C(next.crt) and C(old.crt), trusts every host. Each step may be
    repeated.
options:
  directory: {description: Directory of the authority., type: path, required: true}
  authority: {description: Common name of a new authority., type: str, default: modhaven}
  hosts:
    description: Host name to its list of DNS names and IP addresses.
    type: dict
    required: true
  days: {description: Days for which a new host certificate is valid., type: int, default: 397}
  renew_days:
    description: Days before its end from which a certificate is replaced.
    type: int
    default: 30
  ca_days: {description: Days for which a new authority is valid., type: int, default: 3650}
  rotation:
    description:
      - C(begin) creates the next authority, C(next.key) and C(next.crt), which issues nothing yet.
      - C(switch) makes it the one that issues; the old one's certificate stays as C(old.crt).
      - C(finish) removes C(old.crt).
      - C(begin) while a rotation is under way does nothing, so that it is completed, not doubled.
    type: str
    choices: [none, begin, switch, finish]
    default: none
"""

EXAMPLES = r"""
- name: Issue the hosts' certificates
  host_certificates:
    directory: /srv/modhaven/pki
    hosts:
      edge1: [edge1, 10.0.3.11]
"""

RETURN = r"""
issued: {description: Names for which a certificate was issued., type: list, returned: success}
"""

HOST_EXTENSIONS = """\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


class OpenSSLError(Exception):
    """An openssl command failed; the text says which and why."""


def openssl(*arguments: str) -> str:
    try:
        result = subprocess.run(
            ("openssl", *arguments), capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise OpenSSLError(
            "the openssl command is missing on the controller: install openssl"
        ) from error
    if result.returncode != 0:
        raise OpenSSLError(f"openssl {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout


def succeeds(*arguments: str) -> bool:
    try:
        openssl(*arguments)
    except OpenSSLError:
        return False
    return True


def belong_together(key: Path, certificate: Path) -> bool:
    """Whether `key` is the one that `certificate` was issued for."""
    try:
        return openssl("pkey", "-in", str(key), "-pubout") == openssl(
            "x509", "-in", str(certificate), "-noout", "-pubkey"
        )
    except OpenSSLError:
        return False


def alternative_name(name: str) -> str:
    """One entry of subjectAltName: addresses as IP, the rest as DNS (RFC 5280, 4.2.1.6)."""
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


class Authority:
    """The files of one certificate authority."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hosts = directory / "hosts"
        self.key = directory / "ca.key"
        self.certificate = directory / "ca.crt"
        self.next_key = directory / "next.key"
        self.next_certificate = directory / "next.crt"
        self.old_certificate = directory / "old.crt"

    def is_whole(self) -> bool:
        """Whether there is one; a certificate without its key is refused, not replaced."""
        if self.certificate.exists() and not self.key.exists():
            raise OpenSSLError(
                f"{self.certificate} is there and {self.key} is not: put the key back, or move the"
                " certificate away and every host gets a new authority"
            )
        return self.certificate.exists()

    def create(self, name: str, days: int) -> None:
        self._create(name, days, self.key, self.certificate)

    def _create(self, name: str, days: int, key_path: Path, certificate_path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            key, certificate = f"{scratch}/ca.key", f"{scratch}/ca.crt"
            openssl(
                *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-keyout", key, "-out", certificate, "-days", str(days)),
                *(
                    "-subj",
                    f"/CN={name} authority",
                    "-addext",
                    "keyUsage=critical,keyCertSign,cRLSign",
                ),
            )
            # The certificate last: with it the authority exists, and its key is never replaced.
            Path(key).replace(key_path)
            Path(certificate).replace(certificate_path)

    def steps(self, rotation: str) -> bool:
        """Whether a step of a rotation has something to do."""
        begun, switched = self.next_certificate.exists(), self.old_certificate.exists()
        return {
            "none": False,
            "begin": not begun and not switched,
            "switch": begun,
            "finish": switched and not begun,
        }[rotation]

    def rotate(self, rotation: str, name: str, days: int) -> None:
        """One step, where it has something to do."""
        if rotation == "begin":
            self._create(name, days, self.next_key, self.next_certificate)
        elif rotation == "switch":
            # The old certificate first: at no moment is it nowhere.
            kept = self.directory / "old.crt.new"
            kept.write_bytes(self.certificate.read_bytes())
            kept.replace(self.old_certificate)
            self.next_key.replace(self.key)
            self.next_certificate.replace(self.certificate)
        else:
            self.old_certificate.unlink()

    def complete_switch(self) -> None:
        """A switch that was cut short between its last two renames has its key in place already."""
        if self.next_certificate.exists() and not self.next_key.exists():
            self.next_certificate.replace(self.certificate)

    def ends_within(self, days: int) -> bool:
        return not succeeds(
            "x509", "-in", str(self.certificate), "-noout", "-checkend", str(days * 86400)
        )

    def paths(self, host: str) -> tuple[Path, Path, Path]:
        return tuple(self.hosts / f"{host}.{kind}" for kind in ("key", "crt", "names"))  # type: ignore[return-value]

    def is_current(self, host: str, names: list[str], renew_days: int) -> bool:
        key, certificate, recorded = self.paths(host)
        return (
            all(path.exists() for path in (key, certificate, recorded))
            and recorded.read_text().split() == names
            and succeeds(
                "x509", "-in", str(certificate), "-noout", "-checkend", str(renew_days * 86400)
            )
            and belong_together(key, certificate)
            and succeeds("verify", "-CAfile", str(self.certificate), str(certificate))
        )

    def issue(self, host: str, names: list[str], days: int) -> None:
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            key, request, certificate = (f"{scratch}/host.{kind}" for kind in ("key", "csr", "crt"))
            extensions = Path(scratch, "extensions")
            extensions.write_text(
                HOST_EXTENSIONS.format(names=", ".join(alternative_name(name) for name in names))
            )
            openssl(
                *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-keyout", key, "-out", request, "-subj", f"/CN={host[:64]}"),
            )
            openssl(
                *("x509", "-req", "-in", request, "-out", certificate, "-days", str(days)),
                *("-CA", str(self.certificate), "-CAkey", str(self.key)),
                # A random serial number each time: a serial file cut short would end all issuing.
                *("-CAserial", f"{scratch}/serial", "-CAcreateserial"),
                *("-extfile", str(extensions)),
            )
            recorded = Path(scratch, "names")
            recorded.write_text("\n".join(names) + "\n")
            # The record of names last: without it the pair counts as missing and is issued again.
            for source, target in zip(
                (Path(key), Path(certificate), recorded), self.paths(host), strict=True
            ):
                source.replace(target)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "authority": {"type": "str", "default": "modhaven"},
            "hosts": {"type": "dict", "required": True},
            "days": {"type": "int", "default": 397},
            "renew_days": {"type": "int", "default": 30},
            "ca_days": {"type": "int", "default": 3650},
            "rotation": {
                "type": "str",
                "choices": ["none", "begin", "switch", "finish"],
                "default": "none",
            },
        },
        supports_check_mode=True,
    )
    wanted = module.params
    authority = Authority(Path(wanted["directory"]))
    try:
        if not module.check_mode:
            authority.complete_switch()
        new_authority = not authority.is_whole()
        rotates = not new_authority and authority.steps(wanted["rotation"])
        if rotates and not module.check_mode:
            os.umask(0o077)
            authority.rotate(wanted["rotation"], wanted["authority"], wanted["ca_days"])
        stale = [
            name
            for name, names in sorted(wanted["hosts"].items())
            if new_authority or not authority.is_current(name, list(names), wanted["renew_days"])
        ]
        if not module.check_mode:
            os.umask(0o077)
            authority.hosts.mkdir(parents=True, exist_ok=True)
            if new_authority:
                authority.create(wanted["authority"], wanted["ca_days"])
            for name in stale:
                authority.issue(name, list(wanted["hosts"][name]), wanted["days"])
    except (OpenSSLError, OSError) as error:
        module.fail_json(msg=f"Issuing certificates in {authority.directory}: {error}")
    if not new_authority and authority.ends_within(wanted["days"]):
        module.warn(
            f"The authority in {authority.directory} ends before a certificate of"
            f" {wanted['days']} days would: run playbooks/rotate_certificates.yml"
            " -e new_authority=true"
        )
    module.exit_json(changed=new_authority or rotates or bool(stale), issued=stale)


if __name__ == "__main__":
    main()
