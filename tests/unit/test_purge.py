"""Where an edge keeps what, what a host is, and what its people are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.conftest import ROOT

from modhaven import cli
from modhaven.checks import ConfigError
from modhaven.purge import backend, edge, host
from modhaven.purge.edge import Zone
from modhaven.purge.removed import Removed
from modhaven.selection import NEGATIVE, Selection
from modhaven.store.disk import DiskStore

TEMPLATES = ROOT / "templates/nginx"
# struct ngx_http_file_cache_header_t has bytes of every kind before the key.
HEAD = bytes(range(256)) + bytes(80)


def cached(zone: Zone, key: str, status: int = 200, body: bytes = b"body") -> Path:
    path = zone.file_of(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = f"\nKEY: {key}\nHTTP/1.1 {status} X\r\nServer: nginx\r\n\r\n".encode()
    path.write_bytes(HEAD + answer + body)
    return path


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    return Zone(path=tmp_path / "mutable", levels=(1, 2))


def purge(zone: Zone, selection: Selection) -> int:
    removed = Removed(dry_run=False)
    edge.purge(zone, selection, removed)
    return removed.files


def test_zones_of_the_configuration() -> None:
    text = """
# proxy_cache_path /not/this levels=1:2 keys_zone=a:1m;
proxy_cache_path /var/cache/x/immutable levels=1:2 use_temp_path=off
    keys_zone=immutable_1:64m
    max_size=20g inactive=90d;
  proxy_cache_path /flat keys_zone=flat:1m;
"""
    assert edge.zones(text) == [
        Zone(path=Path("/var/cache/x/immutable"), levels=(1, 2)),
        Zone(path=Path("/flat"), levels=()),
    ]


def test_the_templates_are_what_this_relies_on() -> None:
    text = (TEMPLATES / "edge/cache.conf.j2").read_text().replace("{{ edge_cache_path }}", "/c")
    assert [one.path.name for one in edge.zones(text)] == ["immutable", "mutable"]
    pool = (TEMPLATES / "edge/snippets/pool.conf.j2").read_text()
    assert "proxy_cache_key $uri;" in pool
    assert host.open_seconds((TEMPLATES / "backend/server.conf.j2").read_text()) == 1


def test_where_nginx_keeps_a_key() -> None:
    """The example of ngx_http_proxy_module: levels=1:2 takes the name's end."""
    path = Zone(path=Path("/c"), levels=(1, 2)).file_of("/a.b/c/@v/list")
    name = path.name
    assert path == Path("/c") / name[31] / name[29:31] / name
    assert Zone(path=Path("/c"), levels=()).file_of("/a.b/c/@v/list") == Path("/c") / name


def test_scanning_by_key_and_by_status(zone: Zone) -> None:
    listed = cached(zone, "/example.com/!m/@v/list")
    absent = cached(zone, "/example.com/!m/sub/@v/list", 404)
    gone = cached(zone, "/sumdb/s.x/lookup/example.com/!m@v1.0.0", 410)
    failed = cached(zone, "/example.com/x/@v/list", 502)
    stranger = zone.path / "README"
    stranger.write_text("KEY: /example.com/!m/@v/list\n")
    headless = zone.path / ("0" * 32)
    headless.write_bytes(b"nothing yet")
    assert purge(zone, NEGATIVE) == 2
    assert not absent.exists()
    assert not gone.exists()
    assert purge(zone, Selection.of_module("example.com/M")) == 1
    assert not listed.exists()
    assert all(path.exists() for path in (failed, stranger, headless))


def test_a_query_that_may_name_the_version_goes_with_it(tmp_path: Path) -> None:
    zone = Zone(path=tmp_path / "immutable", levels=(1, 2))
    query = cached(zone, "/example.com/m/@v/v2.0.0.info")
    other = cached(zone, "/example.com/m/@v/v2.0.1.info")
    assert purge(zone, Selection.of_module("example.com/m@v2.0.0+incompatible")) == 1
    assert not query.exists()
    assert other.exists()


def test_a_body_does_not_look_like_a_head(zone: Zone) -> None:
    other = cached(zone, "/a.b/c/@v/list", body=b"\nKEY: /example.com/m/@v/list\nHTTP/1.1 404 X")
    assert purge(zone, Selection.of_module("example.com/m")) == 0
    assert purge(zone, NEGATIVE) == 0
    assert other.exists()


def test_keys_of_any_bytes_and_length(zone: Zone) -> None:
    cached(zone, "/" + "x" * 2047, 404)
    path = cached(zone, "/plain", 404)
    path.write_bytes(HEAD + b"\nKEY: /\xff\xfe\nHTTP/1.1 404 X\r\n")
    assert purge(zone, Selection.of_prefix("example.com")) == 0
    assert purge(zone, NEGATIVE) == 2


def test_a_link_leads_nowhere(zone: Zone, tmp_path: Path) -> None:
    target = cached(Zone(path=tmp_path / "elsewhere", levels=()), "/example.com/m/@v/list")
    zone.path.mkdir()
    (zone.path / ("f" * 32)).symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        purge(zone, Selection.of_module("example.com/m"))
    assert target.exists()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("location / { }", 0),
        ("    open_file_cache max=10 inactive=10s;\n    open_file_cache_valid 1s;\n", 1),
        ("open_file_cache_valid 2m;\nopen_file_cache_valid 30;", 120),
        ("    open_file_cache max=10;\n", 60),
        ("    # open_file_cache max=10;\n    open_file_cache off;\n", 0),
    ],
)
def test_how_long_nginx_keeps_files_open(text: str, seconds: int) -> None:
    assert host.open_seconds(text) == seconds


def test_nobody_but_the_owner_and_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with host.as_owner(tmp_path):
        pass
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="run this as root"), host.as_owner(tmp_path):
        pass


def test_a_user_is_told_to_be_root(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["purge", "a.b/c"]) == 2
    assert capsys.readouterr().err == (
        "modhaven: a purge removes other users' files: run this as root (sudo)\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_root_acts_as_the_owner() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        os.chown(folder, 65534, 65534)
        locked = folder / "locked"
        locked.mkdir(mode=0o700)
        with host.as_owner(folder):
            (folder / "made").touch()
            with pytest.raises(PermissionError):
                (locked / "x").touch()
        made = (folder / "made").stat()
        assert (made.st_uid, made.st_gid) == (65534, 65534)
        assert (os.geteuid(), os.getegid()) == (0, 0)
        (locked / "x").touch()


def test_what_a_store_keeps_of_a_version(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "store", min_free_bytes=0)
    base = "example.com/!m/@v/v1.0.0"
    for key in (f"{base}.info", f"{base}.mod", "example.com/!m/@v/v1.1.0.info"):
        with store.stage(key) as staged:
            staged.file.write(b"x")
            staged.publish(unverified=key.endswith(".mod"))
    # A go command's own files, of a store that was seeded from its cache.
    for name in ("ziphash", "lock"):
        (store.folder(f"{base}.{name}")).touch()
    store.pins.hash_of(f"{base}.mod", "h1:x")
    store.put_mutable("example.com/!m/@v/main.info", b"{}", "mirror", since=0)
    removed = Removed(dry_run=False)
    backend.purge(store, Selection.of_module("example.com/M@v1.0.0"), removed, pins=False)
    counts = {place.where: place.files for place in removed.places}
    assert counts == {
        "backend: files": 5,
        "backend: answers": 1,
        "backend: marks": 1,
        "backend: pins": 0,
    }
    assert list(store.published()) == ["example.com/!m/@v/v1.1.0.info"]
    assert store.folder("example.com/!m/@v/list").read_text() == "v1.1.0\n"
    assert store.pins.where(f"{base}.mod").exists()
    backend.purge(store, Selection.of_module("example.com/M"), removed, pins=True)
    assert not store.folder("example.com/!m/@v/list").exists()
    assert not store.pins.where(f"{base}.mod").exists()


def test_numbers_for_people_and_programs(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    removed = Removed(dry_run=True)
    place = removed.place("edge: mutable")
    assert removed.take(place, tmp_path / "a", "/a.b/c/@v/list")
    assert not removed.take(place, tmp_path / "b", "/gone")
    removed.place("backend: memory", "a note")
    assert (tmp_path / "a").exists()
    assert removed.as_mapping()["would_remove"] == ["edge: mutable: /a.b/c/@v/list"]
    listed, *table = removed.table().splitlines()
    assert listed == "edge: mutable: /a.b/c/@v/list"
    assert [line.split(maxsplit=4) for line in table] == [
        ["where", "files", "bytes"],
        ["edge:", "mutable", "1", "5"],
        ["backend:", "memory", "0", "0", "a note"],
        ["total", "1", "5"],
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "one of the arguments MODULE[@VERSION] --prefix --negative is required"),
        (["a.b/c", "--negative"], "not allowed with argument"),
        (["a.b/c@main"], "a.b/c@main cannot be purged"),
        (["--negative", "--pins"], "--pins is for modules"),
        (["a.b/c"], "there is nothing to purge on"),
        (["a.b/c", "--config", "/none.yml"], "/none.yml"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = cli.main(["purge", "--root", str(tmp_path), *words])
    except SystemExit as error:
        status = int(error.code or 0)
    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (2, 1)
    assert sentence in said


def test_a_part_that_fails_is_said_and_what_was_done_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command as a program: it writes to the system's journal."""
    good = Zone(path=tmp_path / "mutable", levels=(1, 2))
    cached(good, "/example.com/m/@v/list")
    folder = tmp_path / host.NGINX / "edge"
    folder.mkdir(parents=True)
    (folder / "cache.conf").write_text(
        f"proxy_cache_path {good.path} levels=1:2 keys_zone=a:1m;\n"
        f"proxy_cache_path {tmp_path}/absent levels=1:2 keys_zone=b:1m;\n"
    )
    words = ["purge", "--root", str(tmp_path), "--json", "example.com/m"]
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["files"] == 1
    assert err.startswith(f"modhaven: {tmp_path}/absent cannot be purged: No such file")
    assert err.endswith("this host is purged in part, run it again\n")


def test_help_is_complete() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "modhaven.cli", "purge", "--help"],
        check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "app")},
    ).stdout  # fmt: skip
    for word in ("--prefix", "--negative", "--pins", "--dry-run", "--json", "--only", "journalctl"):
        assert word in said
