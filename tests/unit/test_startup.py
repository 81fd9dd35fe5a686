"""What stops the server from starting is one sentence, said before it starts."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modhaven import config, startup
from modhaven.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


def refusal(tmp_path: Path, **changes: object) -> str:
    ca = tmp_path / "ca.pem"
    if not ca.exists():
        ca.touch()
    settings = {"ca_file": str(ca), "store": {"path": str(tmp_path / "store")}, **changes}
    with pytest.raises(ConfigError) as caught:
        startup.check(config.from_mapping(settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_an_address_that_is_taken(tmp_path: Path, taken: int) -> None:
    said = refusal(tmp_path, listen=f"127.0.0.1:{taken}")
    assert said.startswith(f"listen 127.0.0.1:{taken} is taken by another program; stop that one")


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    # Of the range for documents: no host has it.
    said = refusal(tmp_path, listen="192.0.2.1:3000")
    assert said.startswith("listen 192.0.2.1:3000 cannot be listened on: Cannot assign requested")


def test_a_unix_socket_that_is_taken_or_has_no_place(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert "is taken by another program" in refusal(tmp_path, listen=f"unix:{path}")
    (tmp_path / "file").touch()
    for name, reason in (("file", "a file that is no socket"), ("no/socket", "is not a directory")):
        assert reason in refusal(tmp_path, listen=f"unix:{tmp_path}/{name}")


def test_what_a_dead_server_left_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    (tmp_path / "ca.pem").touch()
    settings: dict[str, object] = {
        "ca_file": str(tmp_path / "ca.pem"),
        "store": {"path": str(tmp_path / "store"), "min_free_bytes": 1 << 60},
    }
    # Nor is a disk that is over its watermark: what is there can be served.
    startup.check(config.from_mapping({**settings, "listen": f"unix:{path}"}))
    monkeypatch.setenv("LISTEN_FDS", "1")
    startup.check(config.from_mapping({**settings, "listen": f"127.0.0.1:{taken}"}))


def test_a_store_in_an_impossible_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refusal(tmp_path, store={"path": str(tmp_path / "file" / "store")})
    assert said.startswith(f"store.path {tmp_path}/file/store cannot be used: ")
    assert "Not a directory; make it writable for this user, or name another directory" in said


def test_a_store_that_this_user_cannot_write() -> None:
    # Not tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "store"
        refusal(folder, store={"path": str(store)}, listen="192.0.2.1:3000")
        # May be entered by anybody, whatever the umask of this process.
        for below in (folder, store, *filter(Path.is_dir, store.rglob("*"))):
            below.chmod(0o755)
        (store / "tmp").chmod(0o555)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            said = refusal(folder, store={"path": str(store)})
        finally:
            os.seteuid(before)
    assert said.startswith(f"store.path {store} cannot be used: {store}")
    assert "not writable; make it writable for this user" in said
