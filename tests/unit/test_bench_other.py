"""Other GOPROXY servers in the benchmarks: load is put on this machine only."""

from __future__ import annotations

import socket

import pytest
from tests.bench.other import Other, parse_others


def test_names_and_addresses_are_read() -> None:
    texts = [
        "a=http://127.0.0.1:3000/",
        "b=http://localhost:8081/proxy",
        "c=http://[::1]:80",
        "http://127.0.0.1:3001/x=y",
    ]
    assert parse_others(texts) == (
        Other("a", "http://127.0.0.1:3000"),
        Other("b", "http://localhost:8081/proxy"),
        Other("c", "http://[::1]:80"),
        Other("127.0.0.1:3001", "http://127.0.0.1:3001/x=y"),
    )
    assert parse_others([]) == ()


@pytest.mark.parametrize(
    "url", ["http://proxy.invalid", "http://192.0.2.21:8080", "http://0.0.0.0", "http://[::]"]
)
def test_what_is_not_on_this_machine_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not on this machine"):
        parse_others([f"x={url}"])


@pytest.mark.parametrize(
    "text", ["x", "https://127.0.0.1", "=http://127.0.0.1", "x=ftp://127.0.0.1"]
)
def test_what_is_no_name_with_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=http://HOST:PORT"):
        parse_others([text])


def test_two_servers_have_two_names() -> None:
    with pytest.raises(ValueError, match="two other servers"):
        parse_others(["x=http://127.0.0.1:1", "x=http://127.0.0.1:2"])


def test_one_that_does_not_answer_is_left_out_with_a_sentence() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        other = Other("x", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert other.warm("/m/@v/v1.0.0.mod", b"module m\n").startswith("x is left out: ")
        assert not other.mirrors_database()
