"""nginx's files and figures; that nginx takes them, tests/integration shows."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.conftest import ROOT
from tests.unit.pools import servers

from modhaven.pool import nginx, plan
from modhaven.pool.nginx import Nginx, NginxError
from modhaven.pool.plan import Place, Plan
from modhaven.pool.settings import Limits, Server

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = ROOT / "templates/nginx/upstream.conf.j2"
PAGE = b"""Active connections: 291
server accepts handled requests
 16630948 16630948 31070465
Reading: 6 Writing: 179 Waiting: 106
"""


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (PAGE, 184),
        (b"Active connections: 1 \n...\nReading: 0 Writing: 1 Waiting: 0 \n", 0),
        (b"Active connections: 3 \n...\nReading: 0 Writing: 1 Waiting: 2 \n", 0),
        # Read a moment apart: never less than nothing.
        (b"Active connections: 1\nWaiting: 1\n", 0),
        (b"<html>404</html>", None),
        (b"Active connections: 1\n", None),
        (b"", None),
    ],
)
def test_in_flight(page: bytes, expected: int | None) -> None:
    assert nginx.in_flight(page) == expected


def test_the_file_can_be_read_at_three_in_the_morning() -> None:
    made = Plan(
        places=(
            Place(server=Server(name="backend1", address="10.0.3.11", port=8443)),
            Place(server=Server(name="backend2", address="10.0.3.12", port=8443), reason="down"),
            Place(server=Server(name="backend3", address="fd00::13", port=8443, weight=3)),
            Place(server=Server(name="backend4", address="b4.example", port=80), reason="drained"),
            Place(server=Server(name="backend5", address="10.0.3.15", port=1), reason="joining"),
            Place(server=Server(name="spare1", address="10.0.3.16", port=8443, backup=True)),
        )
    )
    text = nginx.render(TEMPLATE, made, Limits(max_fails=4, fail_timeout_seconds=7, keepalive=32))
    listed = [line.strip() for line in text.splitlines() if line.strip().startswith("server ")]
    assert listed == [
        "server 10.0.3.11:8443 max_fails=0;  # backend1",
        "server 10.0.3.12:8443 max_fails=0 down;  # backend2: down",
        "server [fd00::13]:8443 weight=3 max_fails=0;  # backend3",
        "server b4.example:80 max_fails=0 down;  # backend4: drained",
        "server 10.0.3.16:8443 max_fails=0 backup;  # spare1",
    ]
    # Where nobody is left out although some are down, nginx itself has to find out who.
    down, *others = made.places
    kept = replace(made, places=(replace(down, doubted=True), *others), kept=True)
    text_of_kept = nginx.render(TEMPLATE, kept, Limits(max_fails=4))
    assert "server 10.0.3.11:8443 max_fails=4 fail_timeout=5s;  # backend1" in text_of_kept
    assert "server [fd00::13]:8443 weight=3 max_fails=0;  # backend3" in text_of_kept
    assert text.index("least_conn;") < text.index("keepalive 32;")
    assert "\n\n" not in text
    assert text.endswith(("}\n", "}"))


def test_backups_alone_are_none_to_nginx_which_would_refuse_them() -> None:
    made = Plan(
        places=(
            Place(server=Server(name="a", address="10.0.3.1", port=1), reason="joining"),
            Place(server=Server(name="s", address="10.0.3.2", port=1, backup=True)),
        )
    )
    text = nginx.render(TEMPLATE, made, Limits())
    assert "    server 10.0.3.2:1 max_fails=0;  # s\n" in text


def test_by_hash_nginx_is_told_of_no_backups() -> None:
    made = Plan(
        places=(
            Place(server=Server(name="backend1", address="10.0.3.11", port=8443, weight=2)),
            Place(server=Server(name="s", address="::1", port=1, backup=True), reason="resting"),
        ),
        balance="hash",
    )
    text = nginx.render(TEMPLATE, made, Limits())
    assert "server 10.0.3.11:8443 weight=2 max_fails=0;  # backend1\n" in text
    assert "server [::1]:1 max_fails=0 down;  # s: resting\n" in text
    assert "least_conn" not in text
    assert text.index("hash $modhaven_module consistent;") < text.index("keepalive 64;")


def test_who_joins_changes_nothing_in_the_file_until_it_is_ready() -> None:
    two, three = servers("a", "b"), servers("a", "b", "c")
    states = {"a": "up", "b": "up", "c": "joining"}
    texts = {
        nginx.render(
            TEMPLATE,
            plan.make(some, states, drained=(), max_removed_share=0.7, promote=False),
            Limits(),
        )
        for some in (two, three)
    }
    assert len(texts) == 1


def test_a_thousand_servers_have_a_line_each() -> None:
    many = tuple(Place(server=one) for one in servers(*(f"b{n}" for n in range(1000))))
    text = nginx.render(TEMPLATE, Plan(places=many), Limits())
    assert text.count("\n    server ") == 1000
    fewer = replace(Plan(places=many), places=many[:10])
    assert len(nginx.render(TEMPLATE, fewer, Limits())) < len(text) / 40


@pytest.mark.parametrize("text", ["{% for %}", "{{ plan.nothing }}", "{{ 1 / 0 }}", None])
def test_a_broken_template_is_an_error_that_names_it(tmp_path: Path, text: str | None) -> None:
    template = tmp_path / "upstream.conf.j2"
    if text is not None:
        template.write_text(text)
    with pytest.raises(NginxError, match=r"upstream\.conf\.j2 cannot be rendered: "):
        nginx.render(template, Plan(places=()), Limits())


def test_without_a_running_nginx_the_file_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Nginx, "_check", lambda _self, _text: None)
    server = Nginx(tmp_path, tmp_path / "nginx.pid")
    assert server.live() == ""
    # Whoever includes the file for the first time reads it then.
    assert not server.publish("upstream b {}\n")
    assert not server.reload_is_due
    (tmp_path / "modhaven").mkdir()
    for left_behind in (None, "", "\n", "rubbish"):
        if left_behind is not None:
            (tmp_path / "nginx.pid").write_text(left_behind)
        assert not server.publish("upstream a {}\n")
        assert server.live() == "upstream a {}\n"
        assert server.reload_is_due


def test_another_process_that_got_the_number_of_a_dead_nginx_is_left_alone(tmp_path: Path) -> None:
    # SIGHUP would end it.
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (tmp_path / "nginx.pid").write_text(f"{other.pid}\n")
        assert not Nginx(tmp_path, tmp_path / "nginx.pid").publish("upstream a {}\n")
        time.sleep(0.1)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_an_nginx_that_dies_in_a_reload_is_not_waited_for(tmp_path: Path) -> None:
    """What it was to load stays in place, for the one that comes after it."""
    shutil.copy("/bin/sleep", tmp_path / "nginx")
    (tmp_path / "modhaven").mkdir()
    with subprocess.Popen([tmp_path / "nginx", "60"]) as main:
        (tmp_path / "nginx.pid").write_text(f"{main.pid}\n")
        server = Nginx(tmp_path, tmp_path / "nginx.pid")
        server.file.parent.mkdir()
        server.file.write_text("upstream a {}\n")
        (server.file.parent / "reload-is-due").touch()
        begun = time.monotonic()
        assert not server.reload()
        assert time.monotonic() - begun < 2
        assert server.reload_is_due


def test_a_file_that_cannot_be_written_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "modhaven.pool/upstream.conf/in the way").mkdir(parents=True)
    with pytest.raises(NginxError, match=r"upstream\.conf cannot be read: .*Is a directory"):
        Nginx(tmp_path, tmp_path / "nginx.pid").publish("upstream a {}\n")


def test_a_silent_status_page_is_none_and_does_not_hold_up() -> None:
    assert nginx.connections(("127.0.0.1", 1)) is None
