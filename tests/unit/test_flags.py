"""Every key of the configuration has a flag, a sentence, and a line in the documents."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from modhaven import cli, config, flags, options
from modhaven.config import ConfigError

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def given(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    flags.add(parser)
    return parser.parse_args(arguments)


def test_every_key_has_a_meaning_and_no_meaning_is_left_over() -> None:
    meanings = [key for group in options.MEANINGS.values() for key in group]
    assert sorted(meanings) == sorted(config.known_keys())
    assert set(options.DEFAULTS) | set(options.METAVARS) <= set(meanings)


def test_the_document_says_what_the_help_says() -> None:
    """The lines to paste are on the right side of the comparison."""
    lines = [
        f"| `{key}` | {flags.default_of(key)} | {meaning} |".replace("|", "\\|")
        .replace("\\| ", "| ").replace(" \\|", " |")
        for group in options.MEANINGS.values()
        for key, meaning in group.items()
    ]  # fmt: skip
    documented = re.findall(r"^\| `.+$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert documented == lines


def test_defaults_that_are_values_are_the_real_ones() -> None:
    described = [key for key in options.DEFAULTS if "[]" not in key]
    for key in described:
        value: object = config.Config()
        for name in key.split("."):
            value = getattr(value, name)
        assert not isinstance(value, (bool, int, float)), f"{key} has a value of its own"
    assert flags.default_of("hedge.enabled") == "`true`"
    assert flags.default_of("upstream_timeouts.patience_seconds") == "`1.5`"
    assert flags.default_of("private") == flags.default_of("peer_tls.key_file") == "none"


# A value of each key that is not its default, as typed, and as the file would have it.
VALUES: dict[str, tuple[str, object]] = {
    "node": ("007", "007"),
    "listen": ("[::1]:3000", "[::1]:3000"),
    "workers": ("7", 7),
    "graceful_timeout_seconds": ("9", 9),
    "drain_file": ("/run/d", "/run/d"),
    "accel_prefix": ("/-/x", "/-/x"),
    "direct.go": ("/opt/go/bin/go", "/opt/go/bin/go"),
    "direct.vcs": ("corp.x:git,*:off", "corp.x:git,*:off"),
    "direct.insecure": ("corp.x", "corp.x"),
    "direct.netrc_file": ("/etc/netrc", "/etc/netrc"),
    "direct.known_hosts_file": ("/etc/known", "/etc/known"),
    "direct.ssh": ("{host: git.x, key_file: /k}", [{"host": "git.x", "key_file": "/k"}]),
    "store.path": ("/srv/s", "/srv/s"),
    "upstreams": ("https://a.b|c.d,off", "https://a.b|c.d,off"),
    "private": ("*.corp.x,a.b/c", "*.corp.x,a.b/c"),
    "ca_file": ("/ca.pem", "/ca.pem"),
    "hedge.enabled": ("false", False),
    "require_verified": ("true", True),
    "peers": ("[{name: b, url: https://b.x}]", [{"name": "b", "url": "https://b.x"}]),
    "peer_tls.ca_file": ("/ca", "/ca"),
    "peer_tls.certificate_file": ("/c", "/c"),
    "peer_tls.key_file": ("/k", "/k"),
    "sumdb": ("off", "off"),
    "nosumdb": ("*.corp.x", "*.corp.x"),
}


def value_of(key: str) -> tuple[str, object]:
    if key in VALUES:
        return VALUES[key]
    default = flags.default_of(key).strip("`")
    # Whatever the type, it is a number: a third less of it is allowed for each.
    less = float(default) * 2 / 3
    if isinstance(_now(key, config.Config()), int):
        return str(int(less)), int(less)
    return str(less), less


def _now(key: str, of: config.Config) -> object:
    value: object = of
    for name in key.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("key", flags.keys())
def test_a_flag_does_what_the_key_does(key: str) -> None:
    texts = {key: value_of(key)}
    if key.startswith("peer_tls."):
        texts |= {name: pair for name, pair in VALUES.items() if name.startswith("peer_tls.")}
    if key == "direct.ssh":
        texts["direct.known_hosts_file"] = VALUES["direct.known_hosts_file"]
    data: dict[str, object] = {}
    arguments: list[str] = []
    for name, (text, value) in texts.items():
        section, _, last = name.rpartition(".")
        into = data.setdefault(section, {}) if section else data
        assert isinstance(into, dict)
        into[last] = value
        arguments += [flags.name_of(name), text]
    loaded = flags.load(given(*arguments))
    assert loaded == config.from_mapping(data)
    assert loaded != config.Config()


@pytest.mark.parametrize(
    ("arguments", "data"),
    [
        (["--require-verified"], {"require_verified": True}),
        (["--hedge-enabled=false"], {"hedge": {"enabled": False}}),
        (["--store", "/a"], {"store": {"path": "/a"}}),
        (
            ["--upstreams", "{url: https://a.b, tier: fallback}", "--upstreams", '{"url": "c.d"}'],
            {"upstreams": [{"url": "https://a.b", "tier": "fallback"}, {"url": "c.d"}]},
        ),
        (
            ["--sumdb", "a.b+00000c67+AcTr", "--sumdb", "c.d+00000c67+AcTr https://e.f"],
            {"sumdb": ["a.b+00000c67+AcTr", "c.d+00000c67+AcTr https://e.f"]},
        ),
        (["--peers", "{name: b, url: https://b}"], {"peers": [{"name": "b", "url": "https://b"}]}),
        (["--peers", "[]"], {"peers": []}),
    ],
)
def test_forms_of_values(arguments: list[str], data: dict[str, object]) -> None:
    assert flags.load(given(*arguments)) == config.from_mapping(data)


def test_a_relative_path_is_one_of_the_folder_the_command_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = flags.load(given("--store", "s", "--ca-file", "ca.pem"))
    assert (loaded.store.path, loaded.ca_file) == (tmp_path / "s", tmp_path / "ca.pem")


def test_a_flag_outranks_the_file_and_leaves_the_rest_of_its_section(tmp_path: Path) -> None:
    file = tmp_path / "modhaven.yml"
    file.write_text(
        "upstream_retries: 3\nworkers: 3\nhedge: {min_seconds: 0.1, max_seconds: 0.2}\n"
    )
    loaded = flags.load(
        given("--config", str(file), "--workers", "1", "--hedge-max-seconds", "0.5")
    )
    assert (loaded.upstream_retries, loaded.workers) == (3, 1)
    assert (loaded.hedge.min_seconds, loaded.hedge.max_seconds) == (0.1, 0.5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "0"], "--workers must be a whole number from 1 to 64, not 0"),
        (["--workers", "two"], "--workers must be a whole number from 1 to 64, not 'two'"),
        (["--hedge-max-seconds", "99"], "--hedge-max-seconds must be from 0.01 to 60 seconds"),
        (["--hedge-min-seconds", "2"], "--hedge-min-seconds must not be above hedge.max_seconds"),
        (["--require-verified", "yes"], "--require-verified must be true or false, not 'yes'"),
        (["--listen", "3000"], "--listen must be host:port or unix:/path, not '3000'"),
        (["--upstreams", "{url: 3}"], "--upstreams entry 1: url must be a URL"),
        (["--upstreams", "{url"], "--upstreams has '{url', which is not YAML"),
        (["--peers", "b"], "--peers must be a list of name and url"),
        (["--store-path", ""], "--store-path must be an absolute path, not ''"),
        (["--freshness-stale-max-seconds", "1.5"], "--freshness-stale-max-seconds must be a whole"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_flag(arguments: list[str], sentence: str) -> None:
    asked = given(*arguments)
    with pytest.raises(ConfigError) as caught:
        flags.load(asked)
    told = flags.name_the_flag(str(caught.value), asked)
    assert told.startswith(sentence)
    assert "\n" not in told


def test_a_mistake_in_the_file_names_its_key(tmp_path: Path) -> None:
    file = tmp_path / "modhaven.yml"
    for text, sentence in (("store: 3", "store must be"), ("workers: 0", "workers must be")):
        file.write_text(text)
        asked = given("--config", str(file), "--store", "/a", "--upstream-retries", "1")
        with pytest.raises(ConfigError) as caught:
            flags.load(asked)
        assert flags.name_the_flag(str(caught.value), asked).startswith(sentence)


def test_the_help_fits_a_terminal_and_names_every_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for key in flags.keys():  # noqa: SIM118 - a function of the module
        assert re.search(rf"^  .*{flags.name_of(key)} ", out, re.MULTILINE), key
    assert "`" not in out
