"""A real ``modhaven serve`` with upstreams that have options, black holes, and slow mirrors."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.conftest import TEST_SUMDB, FakeUpstream, GoTestServer, Reply
from tests.integration.egress import PASSWORD, Proxy
from tests.integration.test_app_go import SUMDB_NAME, Server, Servers, holder_of_zip, serve, stored
from tests.unit.test_wsgi import BASE, INFO, MODULE, ZIP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["serve"]
pytestmark = pytest.mark.integration
LIST = f"{MODULE}/@v/list"
DEFAULTS: dict[str, Any] = {"sumdb": "off", "upstream_timeouts": {}}


@pytest.fixture
def fake3() -> Iterator[FakeUpstream]:
    upstream = FakeUpstream()
    yield upstream
    upstream.close()


def timed(server: Server, path: str) -> tuple[int, float]:
    start = time.monotonic()
    status = server.get(path).status_code
    return status, time.monotonic() - start


# --- patience


def test_a_black_hole_first_delays_one_request_by_less_than_two_seconds_and_no_other(
    serve: Servers, fake: FakeUpstream, fake2: FakeUpstream, fake3: FakeUpstream
) -> None:
    fake.default = Reply(hang=True)
    fake2.default = Reply(body=INFO)
    server = serve(f"{fake.url}|{fake2.url}|{fake3.url}", **DEFAULTS)
    status, seconds = timed(server, f"{BASE}.info")
    assert (status, seconds < 2) == (200, True), seconds
    # Enough that each worker has had some.
    for number in range(20):
        fake2.default = Reply(body=INFO.replace(b"v1.0.0", f"v1.{number}.1".encode()))
        status, seconds = timed(server, f"{MODULE}/@v/v1.{number}.1.info")
        assert (status, seconds < 0.5) == (200, True), (number, seconds)


def test_a_black_hole_that_does_not_even_take_connections(
    serve: Servers, fake2: FakeUpstream
) -> None:
    fake2.default = Reply(body=INFO)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.settimeout(0)
            filler.connect_ex(full.getsockname())
        server = serve(f"http://127.0.0.1:{full.getsockname()[1]}|{fake2.url}", **DEFAULTS)
        assert timed(server, f"{BASE}.info")[1] < 2
        fake2.default = Reply(body=INFO.replace(b"v1.0.0", b"v1.0.1"))
        assert timed(server, f"{MODULE}/@v/v1.0.1.info")[1] < 0.5
        for filler in fillers:
            filler.close()


def test_a_module_that_every_mirror_is_slow_with_still_arrives(
    serve: Servers, fake: FakeUpstream, fake2: FakeUpstream, fake3: FakeUpstream
) -> None:
    for mirror in (fake, fake2, fake3):
        mirror.default = Reply(body=ZIP, delay_seconds=8)
    server = serve(f"{fake.url}|{fake2.url}|{fake3.url}", **DEFAULTS)
    status, seconds = timed(server, f"{BASE}.zip")
    assert (status, seconds < 20) == (200, True), seconds
    assert stored(server) == [f"{BASE}.zip"]


def test_lists_are_hedged_and_zips_are_not(
    serve: Servers, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    for path, body in ((LIST, b"v1.0.0\n"), (f"{BASE}.zip", ZIP)):
        fake.script(path, Reply(body=body, delay_seconds=1.2))
        fake2.script(path, Reply(body=body))
    hedge = {"enabled": True, "min_seconds": 0.1, "max_seconds": 0.3}
    server = serve(f"{fake.url}|{fake2.url}", hedge=hedge, **DEFAULTS)
    status, seconds = timed(server, LIST)
    assert (status, seconds < 1) == (200, True), seconds
    answer = server.get(f"{BASE}.zip")
    assert answer.headers["X-Modhaven-Source"] == fake.name
    assert not fake2.counts[f"{BASE}.zip"]


# --- egress proxies


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("tls", [False, True])
def test_an_upstream_behind_an_egress_proxy(
    tmp_path: Path, serve: Servers, scheme: str, *, tls: bool
) -> None:
    authority = Authority(tmp_path)
    upstream = FakeUpstream(authority.server_context() if tls else None)
    proxy = Proxy(scheme)
    try:
        upstream.default = Reply(body=INFO)
        port = upstream.name.rpartition(":")[2]
        # Only these two leave the name to the proxy.
        host = "127.0.0.1" if scheme == "socks5" else "mirror.corp.invalid"
        entry = {
            "url": f"{'https' if tls else 'http'}://{host}:{port}",
            "proxy": proxy.url,
            "ca_file": str(authority.file),
        }
        server = serve([entry], **DEFAULTS)
        assert server.get(f"{BASE}.info").content == INFO
        assert set(proxy.asked) == {f"{host}:{port}"}
        proxy.close()
        said = server.get(f"{MODULE}/@v/v1.0.1.info")
        assert said.status_code == 502
        for text in (said.text, *logs(server)):
            assert PASSWORD not in text
    finally:
        proxy.close()
        upstream.close()


def logs(server: Server) -> list[str]:
    return [(server.folder / name).read_text() for name in ("stdout", "stderr")]


# --- certificates and credentials


class Authority:
    """A certificate authority, its file, and a certificate for loopback signed by it."""

    def __init__(self, folder: Path, name: str = "authority", *, hosts: Sequence[str] = ()) -> None:
        self._hosts = hosts
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.crt"
        self.certificate_file = folder / f"{name}.host.crt"
        self.key_file = folder / f"{name}.host.key"
        own = self._sign(self._name, self._key, authority=True)
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))
        key = ec.generate_private_key(ec.SECP256R1())
        host = self._sign(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host")]), key, authority=False
        )
        self.certificate_file.write_bytes(host.public_bytes(serialization.Encoding.PEM))
        self.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        names: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.DNSName("localhost"),
            x509.DNSName("mirror.corp.invalid"),
            *map(x509.DNSName, self._hosts),
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def server_context(self, *, clients: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate_file, self.key_file)
        if clients:
            context.load_verify_locations(self.file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def test_an_upstream_with_its_own_authority_and_client_certificate(
    tmp_path: Path, serve: Servers
) -> None:
    authority = Authority(tmp_path)
    upstream = FakeUpstream(authority.server_context(clients=True))
    try:
        upstream.default = Reply(body=INFO)
        entry = {"url": upstream.url, "ca_file": str(authority.file)}
        pair = {
            "certificate_file": str(authority.certificate_file),
            "key_file": str(authority.key_file),
        }
        server = serve([entry | pair], **DEFAULTS)
        assert server.get(f"{BASE}.info").content == INFO
        without = serve([entry], **DEFAULTS)
        assert without.get(f"{BASE}.info").status_code == 502
    finally:
        upstream.close()


def test_a_client_certificate_is_not_shown_where_a_redirect_leads(
    tmp_path: Path, serve: Servers
) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    upstream = FakeUpstream(ours.server_context(clients=True))
    # Elsewhere the same authority would let us in, if the certificate were shown.
    demanding = FakeUpstream(ours.server_context(clients=True))
    elsewhere = FakeUpstream(theirs.server_context())
    try:
        elsewhere.default = demanding.default = Reply(body=INFO)
        settings = {**DEFAULTS, "ca_file": str(theirs.file), "upstream_retries": 0}
        entry = {
            "url": upstream.url,
            "ca_file": str(ours.file),
            "certificate_file": str(ours.certificate_file),
            "key_file": str(ours.key_file),
        }
        server = serve([entry], **settings)
        upstream.default = Reply(status=302, headers={"Location": f"{demanding.url}/x"})
        assert server.get(f"{BASE}.info").status_code == 502
        assert not demanding.counts
        upstream.default = Reply(status=302, headers={"Location": f"{elsewhere.url}/x"})
        assert server.get(f"{BASE}.info").content == INFO
    finally:
        for fake in (upstream, demanding, elsewhere):
            fake.close()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("robot:s3cret\n", "Basic cm9ib3Q6czNjcmV0"),
        ("bearer s3cret\n", "Bearer s3cret"),
        ("machine 127.0.0.1 login robot password s3cret\n", "Basic cm9ib3Q6czNjcmV0"),
    ],
)
def test_credentials_reach_their_upstream_and_nobody_else(
    tmp_path: Path,
    serve: Servers,
    fake: FakeUpstream,
    fake2: FakeUpstream,
    *,
    text: str,
    wanted: str,
) -> None:
    file = tmp_path / "credentials"
    file.write_text(text)
    fake.script(f"{BASE}.info", Reply(body=INFO))
    elsewhere = fake2.url.replace("127.0.0.1", "localhost")
    fake.script(f"{BASE}.mod", Reply(status=302, headers={"Location": f"{elsewhere}/moved"}))
    fake2.script("moved", Reply(body=b"module example.com/m\n"))
    fake.default = Reply(status=401)
    chain = [{"url": fake.url, "credentials_file": str(file)}, {"url": fake2.url}]
    server = serve(chain, **DEFAULTS)
    assert server.get(f"{BASE}.info").content == INFO
    assert server.get(f"{BASE}.mod").status_code == 200
    refused = server.get(f"{BASE}.zip")
    assert "401" in refused.text
    assert all(headers.get("Authorization") == wanted for _, headers in fake.headers)
    assert fake2.headers
    assert not any("Authorization" in headers for _, headers in fake2.headers)
    secret = wanted.split()[1]
    for said in (refused.text, *logs(server)):
        assert "s3cret" not in said
        assert secret not in said


# --- private modules


def test_private_modules_are_named_to_no_public_mirror_and_no_database(
    serve: Servers, fake: FakeUpstream, go_server: GoTestServer
) -> None:
    chain = [
        {"url": fake.url},
        {"url": go_server.root, "not_modules": "rsc.io/sampler"},
        {"url": f"{go_server.root}/sumdb-404", "modules": "rsc.io/quote"},
    ]
    server = serve(
        chain,
        private=["rsc.io/quote", "rsc.io/sampler"],
        sumdb=f"{TEST_SUMDB} {fake.url}",
    )
    answer = server.get("rsc.io/quote/@v/v1.5.2.zip")
    assert (answer.status_code, "X-Modhaven-Unverified" in answer.headers) == (200, False)
    assert answer.headers["X-Modhaven-Source"].endswith("#2")
    missing = server.get("rsc.io/sampler/@v/v1.3.0.mod")
    assert missing.status_code == 404
    assert "it is private and no upstream is for it" in missing.text
    for module in ("rsc.io/quote@v1.5.2", "rsc.io/sampler@v1.3.0"):
        lookup = server.get(f"sumdb/{SUMDB_NAME}/lookup/{module}")
        assert (lookup.status_code, "private" in lookup.text) == (404, True)
    assert server.get(f"sumdb/{SUMDB_NAME}/supported").status_code == 200
    assert not any("rsc.io" in path for path in fake.counts)
    # Public ones go their way, and are verified.
    public = server.get("rsc.io/!quer!y/@v/v1.5.2.mod")
    assert public.status_code in (200, 404)
    assert any("query" in path or "!q" in path for path in fake.counts)


# --- siblings


def test_siblings_are_asked_side_by_side_and_hanging_ones_delay_nobody(
    serve: Servers, fake: FakeUpstream, refused_url: str
) -> None:
    sibling = holder_of_zip(serve, fake)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hole = f"http://127.0.0.1:{silent.getsockname()[1]}"
        peers = [{"name": f"hung{n}", "url": hole} for n in range(3)]
        peers.append({"name": "backend2", "url": sibling.url})
        server = serve(refused_url, peers=peers, peer_seconds=3, upstream_retries=0, **DEFAULTS)
        start = time.monotonic()
        answer = server.get(f"{BASE}.zip")
        assert (answer.content, answer.headers["X-Modhaven-Source"]) == (ZIP, "backend2")
        assert time.monotonic() - start < 3
        status, seconds = timed(server, f"{BASE}.mod")
        assert (status, seconds < 6) == (502, True), seconds
