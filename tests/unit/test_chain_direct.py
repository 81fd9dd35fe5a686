"""``direct`` in the chain: a group of its own, behind mirrors that are asked in a hurry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import FakeUpstream, Reply
from tests.unit.test_chain import HEDGE, PATIENCE, make, took, use

from modhaven import config
from modhaven.attempt import AttemptError
from modhaven.breaker import Breaker
from modhaven.chain import Chain, ChainError
from modhaven.latency import Latencies

if TYPE_CHECKING:
    from typing import BinaryIO

    from tests.unit.test_chain import Make

    from modhaven.attempt import Deadline
    from modhaven.source import Source

__all__ = ["make"]


class Direct:
    """A ``direct`` whose origins are a function."""

    def __init__(self, *, falls_through: bool = False, error: AttemptError | None = None) -> None:
        self.name = self.url = "direct"
        self.falls_through = falls_through
        self.is_off = False
        self.is_direct = True
        self.breaker = Breaker(failures=1000, open_seconds=0)
        self.latencies = Latencies()
        self.hurries: list[bool] = []
        self._error = error

    serves_all = False

    def is_for(self, module: str, *, private: bool) -> bool:  # noqa: ARG002 - Source's
        return True

    def fetch(
        self, path: str, sink: BinaryIO, *, limit: int, deadline: Deadline, hurried: bool = False  # noqa: ARG002
    ) -> None:  # fmt: skip
        self.hurries.append(hurried)
        if self._error is not None:
            raise self._error
        sink.write(b"from the origin")

    def probe_while_open(self) -> None:
        pass

    def recovers(self, *, seconds: float) -> bool:  # noqa: ARG002 - Source's
        return True


def chain(make: Make, written: str, direct: Direct, **options: Any) -> Chain:
    """The chain ``written``, with ``direct`` behind its last separator."""
    mirrors: list[Source] = [*make(written.rstrip("|,"))]
    mirrors[-1].falls_through = written.endswith("|")
    return Chain([*mirrors, direct], **options)


ORIGIN = (b"from the origin", "direct")


@pytest.mark.parametrize("separator", ["|", ","])
def test_direct_is_asked_after_not_found(make: Make, fake: FakeUpstream, separator: str) -> None:
    direct = Direct()
    assert chain(make, f"{fake.url}{separator}", direct).walk(use) == ORIGIN
    assert direct.hurries == [False]


def test_direct_is_asked_after_a_failure_behind_a_pipe_only(make: Make, fake: FakeUpstream) -> None:
    fake.default = Reply(status=500)
    assert chain(make, f"{fake.url}|", Direct()).walk(use) == ORIGIN
    direct = Direct()
    with pytest.raises(ChainError) as caught:
        chain(make, f"{fake.url},", direct).walk(use)
    assert not caught.value.not_found
    assert direct.hurries == []


def test_one_mirror_that_hangs_costs_its_patience_when_direct_is_behind(
    make: Make, fake: FakeUpstream
) -> None:
    fake.default = Reply(hang=True)
    start = time.monotonic()
    assert chain(make, f"{fake.url}|", Direct()).walk(use) == ORIGIN
    # Its patience and the probe's, not the three seconds that it has where nothing is behind it.
    assert PATIENCE <= took(start) < PATIENCE + 1.5
    assert fake.counts["x"] == 1


def test_a_slow_mirror_that_is_alive_is_given_its_time_before_direct(
    make: Make, fake: FakeUpstream
) -> None:
    fake.script("x", Reply(body=b"slow", delay_seconds=PATIENCE + 0.4))
    direct = Direct()
    assert chain(make, f"{fake.url}|", direct).walk(use) == (b"slow", fake.name)
    assert direct.hurries == []


def test_what_was_probably_dead_is_asked_again_when_direct_fails(
    make: Make, fake: FakeUpstream
) -> None:
    """It answers no probe in time, but in the end it answers."""
    fake.default = Reply(hang=True)
    fake.script("x", Reply(body=b"slow", delay_seconds=PATIENCE + 0.4))
    direct = Direct(error=AttemptError("connection refused"))
    assert chain(make, f"{fake.url}|", direct).walk(use) == (b"slow", fake.name)
    assert direct.hurries == [False]
    assert fake.counts["x"] == 2


def test_nobody_waits_for_the_dead_when_the_origin_has_it_not(
    make: Make, fake: FakeUpstream
) -> None:
    fake.default = Reply(hang=True)
    direct = Direct(error=AttemptError("not found: it", not_found=True))
    with pytest.raises(ChainError) as caught:
        chain(make, f"{fake.url}|", direct).walk(use)
    assert fake.counts["x"] == 1
    assert not caught.value.not_found


def test_direct_is_never_hedged_and_never_beside_a_mirror(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    for mirror in (fake, fake2):
        mirror.script("x", Reply(body=b"mirror", delay_seconds=0.25))
    direct = Direct()
    walked = chain(make, f"{fake.url}|{fake2.url}|", direct, hedge=HEDGE).walk(use, hedged=True)
    assert walked[0] == b"mirror"
    assert direct.hurries == []


def test_direct_may_stand_before_mirrors(make: Make, fake: FakeUpstream) -> None:
    fake.script("x", Reply(body=b"mirror"))
    failing = Direct(falls_through=True, error=AttemptError("connection refused"))
    assert Chain([failing, *make(fake.url)]).walk(use) == (b"mirror", fake.name)
    assert failing.hurries == [False]
    stopping = Direct(error=AttemptError("connection refused"))
    with pytest.raises(ChainError):
        Chain([stopping, *make(fake.url)]).walk(use)


def test_mirrors_left_out_are_asked_after_all_when_direct_fails(
    make: Make, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    upstreams = make(f"{fake.url}|{fake2.url}")
    fake.default = fake2.default = Reply(status=500)
    for upstream in upstreams:
        upstream.falls_through = True
        for _ in range(3):
            upstream.breaker.failed(timed_out=False)
    direct = Direct(error=AttemptError("connection refused"))
    walking = Chain([*upstreams, direct])
    with pytest.raises(ChainError) as caught:
        walking.walk(use)
    assert direct.hurries == [False]
    assert (fake.counts["x"], fake2.counts["x"]) == (1, 1)
    assert [a.outcome for a in caught.value.attempts] == ["500", "500", "connection refused"]
    fake2.script("x", Reply(body=b"back"))
    assert walking.walk(use) == (b"back", fake2.name)


def test_a_chain_is_dark_when_its_mirrors_are(make: Make, fake: FakeUpstream) -> None:
    upstreams = make(fake.url)
    walking = Chain([*upstreams, Direct()])
    assert not walking.is_dark("a.b/c")
    upstreams[0].breaker.failed(timed_out=True)
    assert walking.is_dark("a.b/c")
    assert not Chain([Direct()]).is_dark("a.b/c")
    assert Chain([]).is_dark("a.b/c")


def test_where_a_stale_answer_is_at_hand_direct_is_hurried(make: Make, fake: FakeUpstream) -> None:
    direct = Direct()
    upstreams = make(fake.url)
    upstreams[0].falls_through = True
    upstreams[0].breaker.failed(timed_out=True)
    assert Chain([*upstreams, direct]).walk(use, persist=False) == ORIGIN
    assert direct.hurries == [True]


def test_private_modules_may_be_asked_for_at_direct(make: Make, fake: FakeUpstream) -> None:
    walking = chain(make, f"{fake.url}|", Direct(), private="*.corp.x")
    assert walking.walk(use, module="git.corp.x/a") == ORIGIN
    assert not fake.counts


@pytest.mark.parametrize(
    ("written", "urls"),
    [
        ("direct", ["direct"]),
        ("https://a.b,direct", ["https://a.b", "direct"]),
        # As for the go command, direct is the end of the line.
        ("https://a.b|direct,https://c.d", ["https://a.b", "direct"]),
    ],
)
def test_direct_in_a_go_style_string(written: str, urls: list[str]) -> None:
    upstreams = config.from_mapping({"upstreams": written}).upstreams
    assert [spec.url for spec in upstreams] == urls
    assert upstreams[-1].is_direct
    assert upstreams[-1].name == "direct"


def test_direct_in_a_list() -> None:
    entry = {"url": "direct", "name": "git", "modules": "corp.x", "total_seconds": 60,
             "proxy": "http://a:1", "ca_file": "/ca", "not_modules": "corp.x/y"}  # fmt: skip
    listed = [{"url": "direct", "tier": "fallback"}, entry, {"url": "https://a.b"}]
    upstreams = config.from_mapping({"upstreams": listed}).upstreams
    assert [spec.name for spec in upstreams] == ["git", "a.b", "direct"]
    assert upstreams[0].total_seconds == 60


@pytest.mark.parametrize(
    "option",
    [
        {"retries": 1}, {"first_byte_seconds": 1}, {"connect_seconds": 1}, {"health_check": False},
        {"credentials_file": "/c"}, {"certificate_file": "/c", "key_file": "/k"},
    ],
)  # fmt: skip
def test_what_has_no_meaning_for_direct_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(config.ConfigError, match=f"{next(iter(option))} has no meaning for direct"):
        config.from_mapping({"upstreams": [{"url": "direct", **option}]})


SSH = {"host": "git.corp.x", "key_file": "/k"}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"goo": "go"}, "direct.goo is not a configuration key"),
        ({"processes": 0}, "direct.processes"),
        ({"vcs": "git"}, "direct.vcs must be in GOVCS's syntax"),
        ({"vcs": "*:git,corp.x"}, "direct.vcs must be in GOVCS's syntax"),
        ({"vcs": "*:cvs"}, "direct.vcs must be in GOVCS's syntax"),
        ({"insecure": "[a"}, "direct.insecure"),
        ({"netrc_file": "netrc"}, "direct.netrc_file"),
        ({"cache_max_bytes": 1}, "direct.cache_max_bytes"),
        ({"ssh": [SSH]}, "direct.ssh needs direct.known_hosts_file"),
        ({"ssh": "x"}, "direct.ssh must be a list"),
        ({"ssh": [{"host": "a.b"}]}, "direct.ssh entry 1 must have a host and a key_file"),
        ({"ssh": [{**SSH, "host": "https://a.b"}]}, "direct.ssh entry 1.host"),
        ({"ssh": [{**SSH, "user": "a b"}]}, "direct.ssh entry 1.user"),
        ({"ssh": [{**SSH, "key_file": '/a"b'}]}, "direct.ssh entry 1.key_file"),
        ({"ssh": [{**SSH, "port": 0}]}, "direct.ssh entry 1.port"),
        ({"ssh": [SSH, SSH], "known_hosts_file": "/k"}, "git.corp.x has an entry already"),
        ({"known_hosts_file": "/100%"}, "direct.known_hosts_file"),
        (3, "direct must be a mapping"),
    ],
)
def test_mistakes_in_the_section_are_one_sentence(section: Any, words: str) -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.from_mapping({"direct": section})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sibling_is_no_direct() -> None:
    with pytest.raises(config.ConfigError, match="direct is no address of a sibling"):
        config.from_mapping({"peers": [{"name": "a", "url": "direct"}]})
