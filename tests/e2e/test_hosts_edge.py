"""What an operator is promised of every edge: the inventory's pool and caches, closed doors."""

from __future__ import annotations

import functools
import re
import uuid

import pytest
from tests.e2e import hosts
from tests.e2e.hosts import address, ask_edge, connect, effective, log_of, output

EDGES = hosts.names("edges")
BACKENDS = hosts.names("backends")
LIST = "/rsc.io/quote/@v/list"
SUFFIXES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

pytestmark = pytest.mark.parametrize("edge", EDGES)


@functools.cache
def configuration(edge: str) -> str:
    """Give the whole configuration as nginx reads it, comments taken away."""
    return re.sub(r"(?m)(^|\s)#.*$", "", output(edge, "nginx -T 2>/dev/null"))


def pool(edge: str) -> list[str]:
    """Give the statements of the pool's block, in their order."""
    blocks = re.findall(
        r"^upstream modhaven_pool \{(.*?)^\}", configuration(edge), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 1, "the pool is not configured exactly once"
    return [" ".join(part.split()) for part in blocks[0].split(";") if part.strip()]


@pytest.mark.parametrize("unit", ["nginx.service", "keepalived.service"])
def test_service_runs_and_will_run_after_a_reboot(edge: str, unit: str) -> None:
    if unit.startswith("keepalived") and not hosts.vip():
        pytest.skip("this inventory has no vip_address")
    service = connect(edge).service(unit)
    assert service.is_running
    assert service.is_enabled


def test_configuration_passes_nginxs_own_check_without_a_warning(edge: str) -> None:
    done = connect(edge).run("nginx -t")
    assert done.rc == 0, done.stderr
    assert "[warn]" not in done.stderr


def test_pool_has_every_backend_of_the_inventory_once_as_the_inventory_says(edge: str) -> None:
    live = {}
    for statement in pool(edge):
        word, *arguments = statement.split()
        if word == "server":
            where, *options = arguments
            assert where not in live, f"{where} is in the pool twice"
            weight = next((o.partition("=")[2] for o in options if o.startswith("weight=")), "1")
            live[where] = (int(weight), "backup" in options)
    wanted = {
        f"{address(name)}:{own['modhaven_backend_port']}": (
            int(own["backend_weight"]),
            bool(own["backend_backup"]),
        )
        for name in BACKENDS
        for own in [effective(name)]
    }
    assert live == wanted


def test_pool_balances_by_least_connections_and_shares_its_state(edge: str) -> None:
    own = effective(edge)
    words = [statement.split()[0] for statement in pool(edge)]
    # The other order only warns, and does not balance as it says.
    assert words.index("least_conn") < words.index("keepalive")
    assert "zone" in words
    servers = [statement for statement in pool(edge) if statement.startswith("server ")]
    for server in servers:
        # Who is out, the pool manager decides alone while enough backends are left.
        assert "max_fails=0" in server.split()
    assert f"keepalive {own['edge_pool_keepalive']}" in pool(edge)


@pytest.mark.parametrize("zone", ["immutable", "mutable"])
def test_cache_zone_has_the_inventorys_sizes_and_is_nginxs_own(edge: str, zone: str) -> None:
    own = effective(edge)
    path = f"{own['edge_cache_path']}/{zone}"
    found = re.findall(
        rf"^proxy_cache_path {re.escape(path)} ([^;]*);", configuration(edge), re.MULTILINE
    )
    assert len(found) == 1
    options = dict(option.split("=", 1) for option in found[0].split())
    # The name ends with a hash of the path: nginx refuses to move a zone at a reload.
    name, _, size = options["keys_zone"].partition(":")
    assert re.fullmatch(f"modhaven_{zone}_[0-9a-f]{{6}}", name)
    assert size == f"{own['edge_cache_keys_megabytes']}m"
    assert options["max_size"] == own[f"edge_cache_{zone}_max_size"]
    assert options["min_free"] == own["edge_cache_min_free"]
    assert options["inactive"] == f"{own['edge_cache_inactive_days']}d"
    assert options["use_temp_path"] == "off"
    user = re.search(r"^user (\S+?);", configuration(edge), re.MULTILINE)
    assert user
    folder = connect(edge).file(path)
    assert folder.is_directory
    assert folder.user == user[1]
    assert folder.mode & 0o007 == 0


def test_cache_fits_on_its_file_system(edge: str) -> None:
    own = effective(edge)
    size = int(output(edge, f"df --output=size --block-size=1 {own['edge_cache_path']} | tail -1"))
    wanted = sum(
        int(own[name][:-1]) * SUFFIXES[own[name][-1].lower()]
        for name in ("edge_cache_immutable_max_size", "edge_cache_mutable_max_size")
    )
    assert wanted < size


def test_certificate_verifies_for_the_edges_own_address_and_the_vip(edge: str) -> None:
    own = effective(edge)
    if not own["edge_https"] or own["edge_tls_certificate"]:
        pytest.skip("this inventory gives the edge no certificate of the deployment's authority")
    for where in filter(None, (address(edge), hosts.vip())):
        assert (
            hosts.ask(where, own["edge_https_port"], "/healthz", context=hosts.trusting()).status
            == 200
        )
    # Who holds the VIP changes: this edge's own certificate has to have its address too.
    names = output(edge, f"openssl x509 -in {hosts.PKI}/host.crt -noout -ext subjectAltName")
    if hosts.vip():
        assert re.search(rf"(IP Address|DNS):{re.escape(hosts.vip())}(,|\s|$)", names)


def test_key_is_closed_to_others(edge: str) -> None:
    file = connect(edge).file(f"{hosts.PKI}/host.pem")
    assert file.user == "root"
    assert file.mode & 0o027 == 0
    assert connect(edge).run(hosts.as_user("nobody", f"cat {hosts.PKI}/host.key")).rc != 0


def test_plain_http_is_open_exactly_when_the_inventory_says_so(edge: str) -> None:
    own = effective(edge)
    if own["edge_plain_http"]:
        assert hosts.ask(address(edge), own["edge_http_port"], LIST).status == 200
    else:
        with pytest.raises(ConnectionRefusedError):
            hosts.ask(address(edge), own["edge_http_port"], "/healthz")


def test_nothing_but_nginx_and_ssh_listens_on_the_network(edge: str) -> None:
    own = effective(edge)
    wanted = {own["edge_https_port"]} if own["edge_https"] else set()
    wanted |= {own["edge_http_port"]} if own["edge_plain_http"] else set()
    wanted |= {own["edge_sibling_port"]} if len(EDGES) > 1 and own["edge_sibling_tries"] else set()
    wanted |= {own["modhaven_backend_port"]} if edge in BACKENDS else set()
    lines = output(edge, "ss --no-header --listening --numeric --tcp --processes").splitlines()
    listening = {
        int(line.split()[3].rpartition(":")[2])
        for line in lines
        if '"sshd"' not in line and not line.split()[3].startswith(("127.", "[::1]"))
    }
    assert listening == wanted
    assert all('"nginx"' in line or '"sshd"' in line for line in lines)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_only_get_and_head_are_answered(edge: str, method: str) -> None:
    answer = ask_edge(edge, LIST, method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_head_gives_what_get_gives_without_a_body(edge: str) -> None:
    get, head = ask_edge(edge, LIST), ask_edge(edge, LIST, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert "Allow" not in get.headers
    assert head.headers["Content-Length"] == str(len(get.body))


@pytest.mark.parametrize("target", ["/metrics", "/-/x", "/-/", "/-", "/-/x.zip"])
def test_operator_paths_are_closed_to_module_users(edge: str, target: str) -> None:
    assert ask_edge(edge, target).status == 403


@pytest.mark.parametrize("target", ["/%2d/x", "//-/x", "/./-/x", "/x/../metrics", "//metrics"])
def test_operator_paths_stay_closed_however_they_are_written(edge: str, target: str) -> None:
    assert ask_edge(edge, target).status in (400, 403, 404)


@pytest.mark.parametrize("target", ["/healthz", "/readyz"])
def test_edge_says_that_it_lives_and_that_a_backend_is_ready(edge: str, target: str) -> None:
    answer = ask_edge(edge, target)
    assert answer.status == 200
    # A cached answer would go on saying so.
    assert answer.headers.get("X-Modhaven-Cache", "") == ""


# In a network namespace of its own, where the VIP is on loopback and nobody listens.
REFUSALS = """
import errno, socket, struct, sys
def connect(port):
    with socket.socket() as client:
        client.settimeout(0.5)
        return errno.errorcode.get(client.connect_ex((sys.argv[1], port)), "connected")
def lost(port, level, option, value):
    with socket.create_server((sys.argv[1], port)) as server:
        with socket.create_connection((sys.argv[1], port), timeout=5) as client:
            accepted = server.accept()[0]
            accepted.setsockopt(level, option, value)
            accepted.close()
            try:
                client.send(b"x")
                return client.recv(1) and "data"
            except ConnectionResetError:
                return "reset"
port, TCP_REPAIR = int(sys.argv[2]), 19
print(connect(port), connect(1))
# Closed under repair a connection ends without a word, as when another edge had it.
print(lost(port, socket.IPPROTO_TCP, TCP_REPAIR, 1))
print(lost(port, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)))
"""


def test_the_vip_of_an_nginx_that_has_ended_refuses_nobody_and_resets_who_was_connected(
    edge: str,
) -> None:
    if not hosts.vip():
        pytest.skip("this inventory has no vip_address")
    known = effective(edge)
    script = (
        'ip link set lo up && ip address add "$1/32" dev lo && nft --file /etc/modhaven/vip.nft && '
        'exec python3 -c "$0" "$@"'
    )
    said = output(
        edge,
        "unshare --net sh -c %s %s %s %s",
        script,
        REFUSALS,
        hosts.vip(),
        str(known["edge_https_port" if known["edge_https"] else "edge_http_port"]),
    )
    assert said.split() == ["EAGAIN", "ECONNREFUSED", "reset", "reset"]
    loaded = output(edge, "nft list table inet modhaven_vip_moves")
    assert f" {hosts.vip()} " in loaded
    assert "drop" in loaded


def test_exactly_one_edge_holds_the_vip(edge: str) -> None:
    if not hosts.vip():
        pytest.skip("this inventory has no vip_address")
    held = {name: output(name, "ip -oneline address show") for name in EDGES}
    holders = [name for name, shown in held.items() if f" {hosts.vip()}/" in shown]
    assert len(holders) == 1, holders
    # Clients of the VIP get that edge's answers, and nobody else's.
    mark = f"modhaven-e2e/{uuid.uuid4().hex}"
    own = effective(edge)
    hosts.ask(
        hosts.vip(),
        own["edge_https_port" if own["edge_https"] else "edge_http_port"],
        LIST,
        headers={"User-Agent": mark},
        context=hosts.trusting() if own["edge_https"] else None,
    )
    # Waited for where there should be none, too: the log is written late.
    assert bool(log_of(edge, mark)) == (edge in holders)
