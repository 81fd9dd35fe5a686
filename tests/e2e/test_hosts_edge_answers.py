"""What an operator is promised of an edge's answers: marked, logged, kept under one clean name."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import random
import re
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.e2e import hosts
from tests.e2e.hosts import Answer, address, as_target, ask_edge, connect, effective, log_of, output
from tests.lab.inventory import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

EDGES = hosts.names("edges")
BACKENDS = hosts.names("backends")
LIST = "/rsc.io/quote/@v/list"
BACKEND_LOG = "/var/log/nginx/modhaven-backend.log"
CLASSES: dict[str, list[str]] = yaml.safe_load(
    (ROOT / "tests" / "data" / "request_classes.yml").read_text()
)
TRIES = 5

pytestmark = pytest.mark.parametrize("edge", EDGES)


def max_age(answer: Answer) -> int:
    """Give the seconds a cache may keep an answer, 0 when it may not."""
    control = answer.headers.get("Cache-Control", "")
    found = re.search(r"max-age=(\d+)", control)
    return int(found[1]) if found and "no-store" not in control else 0


def test_http_2_is_offered_only_where_the_inventory_says_so(edge: str) -> None:
    known = effective(edge)
    if not known["edge_https"]:
        pytest.skip("this inventory has no TLS")
    context = hosts.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    place = (address(edge), int(known["edge_https_port"]))
    with (
        socket.create_connection(place, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=address(edge)) as secured,
    ):
        assert secured.selected_alpn_protocol() == ("h2" if known["edge_http2"] else "http/1.1")


def test_every_answer_is_marked_and_its_request_id_is_fresh_on_a_hit_too(edge: str) -> None:
    answers = [ask_edge(edge, LIST) for _ in range(4)]
    assert {answer.status for answer in answers} == {200}
    assert answers[-1].headers["X-Modhaven-Cache"] == "HIT"
    ids = [answer.headers.get_all("X-Request-Id") for answer in answers]
    assert all(found and len(found) == 1 for found in ids), "not exactly one X-Request-Id"
    assert len({found[0] for found in ids if found}) == len(answers)
    for answer in answers:
        assert answer.headers["X-Modhaven-Cache"]
        assert answer.headers["X-Modhaven-Backend"] in BACKENDS
        assert answer.headers["X-Modhaven-Source"]


def test_log_is_json_and_says_who_answered_from_where(edge: str) -> None:
    mark = f"modhaven-e2e/{uuid.uuid4().hex}"
    fresh = f"/example.com/x{uuid.uuid4().hex}/@v/list"
    wanted = {}
    for number, path in enumerate((fresh, fresh, LIST)):
        agent = f"{mark}-{number}"
        answer = ask_edge(edge, path, headers={"User-Agent": agent})
        hosts.wait_until_kept(edge, path)
        # 404 only when every mirror said so: another answer is no cache's to keep.
        assert answer.status == (200 if path == LIST else 404), answer.body
        wanted[agent] = {
            "request_id": answer.headers["X-Request-Id"],
            "cache": answer.headers["X-Modhaven-Cache"],
            "backend": answer.headers["X-Modhaven-Backend"],
            "status": answer.status,
            "bytes": len(answer.body),
            "path": path,
            "class": "mutable",
            "method": "GET",
        }
    logged = log_of(edge, mark, len(wanted))
    assert {
        agent: {name: record[name] for name in wanted[agent]} for agent, record in logged.items()
    } == wanted
    first, second = (logged[f"{mark}-{number}"] for number in (0, 1))
    assert (first["cache"], second["cache"]) == ("MISS", "HIT")
    where = {f"{address(name)}:{effective(name)['modhaven_backend_port']}" for name in BACKENDS}
    assert set(first["upstream"].split(", ")) <= where
    assert second["upstream"] == ""


def test_log_stays_json_whatever_a_client_sends(edge: str) -> None:
    mark = uuid.uuid4().hex
    hostile = f'{mark} "quoted" back\\slash \ttab }}{{ \x7f é'
    answer = ask_edge(edge, '/%22%5c%0a%01%ff"/@v/list', headers={"User-Agent": hostile})
    assert log_of(edge, answer.headers["X-Request-Id"])


def test_a_backend_s_log_stays_json_too(edge: str) -> None:
    mark = uuid.uuid4().hex
    answer = ask_edge(edge, f"/%ff{mark}/@v/list")
    backend, request_id = answer.headers["X-Modhaven-Backend"], answer.headers["X-Request-Id"]
    [record] = hosts.logged(backend, BACKEND_LOG, request_id)
    assert record["path"] == "(not ASCII)"


@functools.cache
def real_modules() -> list[tuple[str, str]]:
    """Give (path, version) of modules that the lab's mirrors have: the go command's test data."""
    package = importlib.util.find_spec("go")
    assert package
    assert package.origin
    folder = Path(package.origin).parent / "src" / "cmd" / "go" / "testdata" / "mod"
    names = (re.fullmatch(r"([a-z.]+_[a-z_]+)_(v1\.\d+\.\d+)", p.stem) for p in folder.iterdir())
    return [(name[1].replace("_", "/"), name[2]) for name in names if name]


def backend_has(edge: str, path: str) -> bool:
    """Tell whether a backend has a path, asked past the edge's cache."""
    own = effective(BACKENDS[0])
    secure = own["modhaven_mtls"]
    url = f"{hosts.BACKEND_NAME}:{own['modhaven_backend_port']}"
    options = f"--connect-to {url}:{address(BACKENDS[0])}:{own['modhaven_backend_port']}"
    if secure:
        options += "".join(
            f" --{option} {hosts.PKI}/{file}"
            for option, file in (("cacert", "ca.crt"), ("cert", "host.crt"), ("key", "host.key"))
        )
    scheme = "https" if secure else "http"
    command = f"curl --silent --fail --output /dev/null --max-time 10 {options} {scheme}://{url}"
    return bool(connect(edge).run(command + path).rc == 0)


def fresh_target(edge: str, kind: str) -> str:
    """Give the path of a list or .info that this edge's cache does not hold, or holds longest."""
    paths = {
        f"/{module}/@v/list" if kind == "list" else f"/{module}/@v/{version}.info"
        for module, version in real_modules()
    }
    zone = "mutable" if kind == "list" else "immutable"
    root = f"{effective(edge)['edge_cache_path']}/{zone}"
    files = output(edge, f"find {root} -type f -printf '%f %T@\\n'").splitlines()
    held = {name: float(changed) for name, _, changed in (line.partition(" ") for line in files)}
    # nginx names a cache file after the MD5 of its key, which is the decoded path.
    age = {path: held.get(hashlib.md5(path.encode()).hexdigest(), 0) for path in paths}  # noqa: S324
    return min(paths, key=lambda path: (age[path], random.random()))  # noqa: S311


ODD_FORMS: dict[str, Callable[[str], str]] = {
    "double-slash": lambda path: path.replace("/", "//", 2)[1:],
    "leading-double-slash": lambda path: f"/{path}",
    "dot-dot": lambda path: f"/x.example/..{path}",
    "encoded-dot-dot": lambda path: f"/x.example/%2e%2e{path}",
    "encoded-slash": lambda path: "/" + path[1:].replace("/", "%2F", 1),
    "encoded-dot": lambda path: path.replace(".", "%2e", 1),
    "query": lambda path: f"{path}?x=/../y",
    "fragment": lambda path: f"{path}#x",
}


@pytest.mark.parametrize("kind", ["list", "info"])
@pytest.mark.parametrize("form", ODD_FORMS)
def test_odd_form_of_a_path_never_spoils_the_clean_one(edge: str, form: str, kind: str) -> None:
    for _ in range(TRIES):
        clean = fresh_target(edge, kind)
        odd = ask_edge(edge, ODD_FORMS[form](clean))
        answer = ask_edge(edge, clean)
        # Some of the test data is broken on purpose. Asked afterwards, or the store would know it.
        if answer.status == 200 or backend_has(edge, clean):
            break
    assert answer.status == 200, (
        f"{ODD_FORMS[form](clean)} got {odd.status}"
        f" ({odd.headers.get('Cache-Control')}), and then {clean} got {answer.status}"
        f" (cache: {answer.headers['X-Modhaven-Cache']}): {answer.body.decode()}"
    )
    # And what the cache keeps of it is the same.
    assert ask_edge(edge, clean).body == answer.body


@pytest.mark.parametrize(("first", "second"), [("!x", "%21x"), ("%21x", "!x")])
def test_both_spellings_of_an_uppercase_letter_share_one_cache_entry(
    edge: str, first: str, second: str
) -> None:
    name = uuid.uuid4().hex
    asked = []
    for form in (first, second):
        path = f"/example.com/{form}{name}/@v/list"
        asked.append(ask_edge(edge, path))
        hosts.wait_until_kept(edge, path)
    assert asked[0].status == 404, asked[0].body
    assert [answer.headers["X-Modhaven-Cache"] for answer in asked] == ["MISS", "HIT"]
    assert asked[0].body == asked[1].body


@functools.cache
def classified(edge: str) -> dict[str, tuple[Answer, dict[str, Any]]]:
    """Ask an edge for every path of the table; give each one's answer and log record."""
    mark = f"modhaven-e2e/{uuid.uuid4().hex}"
    agents = {
        path: f"{mark}-{number}"
        for number, path in enumerate(path for paths in CLASSES.values() for path in paths)
    }
    answers = {
        path: ask_edge(edge, as_target(path), headers={"User-Agent": agent})
        for path, agent in agents.items()
    }
    # keepalived asks /healthz several times a second: it is not logged.
    logged = log_of(edge, mark, len(agents) - 1)
    return {path: (answers[path], logged.get(agent, {})) for path, agent in agents.items()}


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "refused"])
def test_edge_and_app_agree_on_the_class_of_every_request(edge: str, name: str) -> None:
    seen = {path: classified(edge)[path][1].get("class") for path in CLASSES[name]}
    if "/healthz" in seen:
        seen["/healthz"] = name
    assert seen == dict.fromkeys(CLASSES[name], name)


def test_nothing_refused_is_kept_longer_than_a_not_found_answer(edge: str) -> None:
    longest = max(effective(name)["backend_not_found_seconds"] for name in BACKENDS)
    wrong = {
        path: (answer.status, answer.headers.get("Cache-Control"))
        for path in CLASSES["refused"]
        for answer in [classified(edge)[path][0]]
        if answer.status not in (400, 403, 404)
        or max_age(answer) > longest
        or "immutable" in answer.headers.get("Cache-Control", "")
    }
    assert wrong == {}


def test_local_answers_and_operator_paths_are_never_cached(edge: str) -> None:
    kept = {
        path: answer.headers.items()
        for path in CLASSES["local"] + CLASSES["operator"]
        for answer in [classified(edge)[path][0]]
        if answer.headers.get("X-Modhaven-Cache", "") or max_age(answer)
    }
    assert kept == {}
