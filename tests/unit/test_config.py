"""The configuration: defaults that work, and one sentence for each mistake."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from modhaven import config
from modhaven.chain_spec import parse_chain
from modhaven.config import Config, ConfigError

CONTRACT = """
node: backend1
listen: unix:/run/modhaven/app.sock
store: {path: /var/lib/modhaven/store, min_free_bytes: 1073741824, quarantine_max_bytes: 5}
upstreams: "https://goproxy.cn|https://goproxy.io|https://proxy.golang.org"
upstream_timeouts: {connect_seconds: 2, first_byte_seconds: 5, total_seconds: 300}
request_deadline_seconds: 300
ca_file: /etc/ssl/certs/ca-certificates.crt
sumdb: "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
nosumdb: ""
require_verified: true
freshness: {mutable_seconds: 60, not_found_seconds: 60, stale_max_seconds: 604800}
workers: 2
limits: {zip_requests: 8, file_requests: 4, mutable_requests: 2}
"""


def test_a_complete_file(tmp_path: Path) -> None:
    file = tmp_path / "modhaven.yml"
    file.write_text(CONTRACT)
    loaded = config.load(file)
    assert loaded.node == "backend1"
    assert loaded.store.path == Path("/var/lib/modhaven/store")
    assert loaded.store.quarantine_max_bytes == 5
    assert loaded.require_verified
    assert loaded.limits.threads == 8 + 4 + 2 + 64
    assert [u.name for u in loaded.upstreams] == ["goproxy.cn", "goproxy.io", "proxy.golang.org"]
    assert [u.falls_through for u in loaded.upstreams] == [True, True, False]
    assert loaded.sumdb[0].url == "https://sum.golang.org"
    assert loaded.upstream_timeouts.first_byte_seconds == 5


def test_an_empty_file_is_all_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "empty.yml").write_text("")
    loaded = config.load(tmp_path / "empty.yml")
    assert loaded == Config()
    assert loaded.listen == "127.0.0.1:3000"
    assert loaded.store.path == tmp_path / "modhaven" / "store"


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"upstream": "x"}, "upstream "),
        ({"store": {"pth": "/x"}}, "store.pth"),
        ({"store": {"path": "relative"}}, "store.path"),
        ({"store": 3}, "store "),
        ({"workers": 0}, "workers"),
        ({"workers": True}, "workers"),
        ({"limits": {"zip_requests": "many"}}, "limits.zip_requests"),
        ({"upstreams": "https://a.b,directly"}, "upstreams"),
        ({"upstreams": "ftp://a.b"}, "upstreams"),
        ({"peers": [{"name": "backend2"}]}, "peers"),
        ({"peers": [{"name": "backend2", "url": "backend2"}]}, "peers"),
        ({"peers": "https://backend2"}, "peers"),
        ({"peer_tls": {"ca_file": "/ca.crt"}}, "peer_tls"),
        ({"peer_tls": {"ca_file": "ca.crt"}}, "peer_tls.ca_file"),
        ({"upstreams": ""}, "upstreams"),
        ({"upstreams": [{"name": "a"}]}, "upstreams"),
        ({"upstreams": [{"url": "https://a.b", "urll": 1}]}, "urll"),
        ({"upstreams": "https://user@a.b"}, "upstreams"),
        ({"upstreams": "https://a.b:99999"}, "upstreams"),
        ({"sumdb": "sum.golang.org"}, "sumdb"),
        ({"sumdb": [1]}, "sumdb"),
        ({"listen": "3000"}, "listen"),
        ({"listen": "127.0.0.1:99999"}, "listen"),
        ({"upstream_timeouts": {"connect_seconds": 0}}, "upstream_timeouts.connect_seconds"),
        ({"request_deadline_seconds": "5m"}, "request_deadline_seconds"),
        ({"freshness": {"mutable_seconds": -1}}, "freshness.mutable_seconds"),
        ({"ca_file": "ca.pem"}, "ca_file"),
        ({"nosumdb": 3}, "nosumdb"),
        ({"require_verified": "yes"}, "require_verified"),
        ({"store": {"quarantine_max_bytes": -1}}, "store.quarantine_max_bytes"),
        ([], "mapping"),
    ],
)
def test_mistakes_are_one_sentence_that_names_the_key(data: object, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_mapping(data)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "\x01", "a: !!python/object:os.system x"])
def test_what_is_not_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yml").write_text(text)
    with pytest.raises(ConfigError, match=r"x\.yml is not YAML"):
        config.load(tmp_path / "x.yml")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "none.yml")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://a.b|c.d,off", [("https://a.b", True), ("https://c.d", False), ("off", False)]),
        ("a.b , |c.d/x/", [("https://a.b", False), ("https://c.d/x", False)]),
        ("off,https://a.b", [("off", False)]),
        ("http://127.0.0.1:8090/mod", [("http://127.0.0.1:8090/mod", False)]),
    ],
)  # fmt: skip
def test_chain_syntax_is_the_go_commands(text: str, wanted: list[tuple[str, bool]]) -> None:
    assert [(spec.url, spec.falls_through) for spec in parse_chain(text)] == wanted


def test_two_upstreams_of_one_host_have_two_names() -> None:
    assert [spec.name for spec in parse_chain("http://a.b/1|http://a.b/2")] == ["a.b", "a.b#2"]


def test_upstreams_as_a_list() -> None:
    loaded = config.from_mapping(
        {"upstreams": [{"url": "a.b", "name": "first", "falls_through": False}, {"url": "c.d"}]}
    )
    assert [(u.name, u.falls_through) for u in loaded.upstreams] == [
        ("first", False),
        ("c.d", True),
    ]


def test_databases() -> None:
    key = "localhost.localdev/sumdb+00000c67+AcTrnkbUA+TU4heY3hkjiSES/DSQniBqIeQ/YppAUtK6"
    loaded = config.from_mapping({"sumdb": [key, "a.b+00000c67+AcTr https://mirror.example/db/"]})
    assert [(d.name, d.url) for d in loaded.sumdb] == [
        ("localhost.localdev/sumdb", "https://localhost.localdev/sumdb"),
        ("a.b", "https://mirror.example/db"),
    ]
    assert config.from_mapping({"sumdb": "off"}).sumdb == ()


def upstream(**options: object) -> dict[str, object]:
    return {"upstreams": [{"url": "https://a.b", **options}]}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (upstream(name="a b"), "upstreams entry 1: name must be"),
        (upstream(url=3), "upstreams entry 1: url must be"),
        (upstream(url="off"), "upstreams entry 1: url off has no place"),
        (upstream(falls_through="yes"), "upstreams entry 1: falls_through must be true or false"),
        (upstream(connect_seconds=0), "upstreams entry 1: connect_seconds must be from 0.1"),
        (upstream(first_byte_seconds="9"), "upstreams entry 1: first_byte_seconds must be a num"),
        (upstream(total_seconds=0.5), "upstreams entry 1: total_seconds must be from 1"),
        (upstream(retries=11), "upstreams entry 1: retries must be a whole number"),
        (upstream(proxy="ftp://p:1"), "upstreams entry 1: proxy must be an http://"),
        (upstream(proxy="socks5://p"), "upstreams entry 1: proxy must be"),
        (upstream(proxy="http://u:secret@p:99999"), "upstreams entry 1: proxy must be"),
        (upstream(ca_file="ca.pem"), "upstreams entry 1: ca_file must be an absolute path"),
        (upstream(certificate_file="/c"), "entry 1: certificate_file needs key_file beside it"),
        (upstream(key_file="/k"), "entry 1: key_file needs certificate_file beside it"),
        (
            upstream(url="http://a.b", certificate_file="/c", key_file="/k"),
            "certificate_file needs an https:// url",
        ),
        (upstream(credentials_file="x"), "upstreams entry 1: credentials_file must be"),
        (upstream(modules=[]), "upstreams entry 1: modules must have at least one pattern"),
        (upstream(modules=["[a"]), "upstreams entry 1: modules has '[a'"),
        (upstream(not_modules="https://a"), "upstreams entry 1: not_modules has"),
        (upstream(health_check=1), "upstreams entry 1: health_check must be true or false"),
        (upstream(tier="third"), "upstreams entry 1: tier must be primary or fallback"),
        ({"private": ["a b"]}, "private has 'a b'"),
        ({"private": 1}, "private must be module path patterns"),
        ({"hedge": {"enabled": 1}}, "hedge.enabled must be true or false"),
        ({"hedge": {"min_seconds": 2}}, "hedge.min_seconds must not be above hedge.max_seconds"),
        ({"upstream_timeouts": {"patience_seconds": 0}}, "upstream_timeouts.patience_seconds"),
        ({"peer_seconds": 0}, "peer_seconds must be"),
    ],
)
def test_mistakes_in_the_chain_are_one_sentence_that_names_the_key(
    data: object, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_mapping(data)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_every_option_of_an_upstream() -> None:
    options: dict[str, object] = {
        "connect_seconds": 1,
        "first_byte_seconds": 2,
        "total_seconds": 3,
        "retries": 4,
        "proxy": "socks5h://u:p@proxy:1080",
        "ca_file": "/ca",
        "certificate_file": "/c",
        "key_file": "/k",
        "credentials_file": "/n",
        "modules": ["*.corp.x", "a.b/c"],
        "not_modules": "*.corp.x/public",
        "health_check": False,
    }
    (spec,) = config.from_mapping(upstream(**options)).upstreams
    assert (spec.connect_seconds, spec.first_byte_seconds, spec.total_seconds) == (1, 2, 3)
    assert (spec.retries, spec.proxy) == (4, "socks5h://u:p@proxy:1080")
    assert (spec.ca_file, spec.certificate_file, spec.key_file, spec.credentials_file) == tuple(
        map(Path, ("/ca", "/c", "/k", "/n"))
    )
    assert (spec.modules, spec.not_modules) == ("*.corp.x,a.b/c", "*.corp.x/public")
    assert not spec.health_check


def test_primary_upstreams_come_before_fallback_ones() -> None:
    urls = [("w.x", "fallback"), ("x.x", "primary"), ("y.x", "fallback"), ("z.x", "primary")]
    loaded = config.from_mapping({"upstreams": [{"url": url, "tier": tier} for url, tier in urls]})
    assert [spec.name for spec in loaded.upstreams] == ["x.x", "z.x", "w.x", "y.x"]


@pytest.mark.parametrize(
    ("modules", "not_modules", "module", "private", "wanted"),
    [
        ("", "", "github.com/a/b", False, True),
        ("", "", "git.corp.x/a", True, False),
        ("*.corp.x", "", "git.corp.x/a", True, True),
        ("*.corp.x", "", "github.com/a/b", False, False),
        ("*.corp.x", "git.corp.x/secret", "git.corp.x/secret/b", True, False),
        ("", "github.com/a", "github.com/a/b", False, False),
    ],
)
def test_what_an_upstream_is_for(
    modules: str, not_modules: str, module: str, *, private: bool, wanted: bool
) -> None:
    (spec,) = parse_chain("a.b")
    spec = dataclasses.replace(spec, modules=modules, not_modules=not_modules)
    assert spec.is_for(module, private=private) is wanted
