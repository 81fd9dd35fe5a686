"""Who is asked, for every combination that decides it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.pools import servers

from modhaven.pool import plan

if TYPE_CHECKING:
    from modhaven.pool.plan import Plan


def make(
    states: dict[str, str],
    *,
    drained: str = "",
    share: float = 0.7,
    promote: bool = False,
    balance: str = "least_conn",
) -> Plan:
    made = servers(*states)
    by_name = dict(zip((one.name for one in made), states.values(), strict=True))
    return plan.make(
        made,
        by_name,
        drained=drained.split(),
        max_removed_share=share,
        promote=promote,
        balance=balance,
    )


def asked(made: Plan) -> str:
    return " ".join(place.server.name for place in made.places if place.asked)


def reasons(made: Plan) -> dict[str, str]:
    return {place.server.name: place.reason for place in made.places if place.reason}


# States of a, b, c, …: u up, d down, j joining. Who is drained; the share; who is asked; kept.
CASES = [
    ("uuu", "", 0.7, "a b c", False),
    ("duu", "", 0.7, "b c", False),
    ("ddu", "", 0.7, "c", False),
    # Two of three are 0.667.
    ("ddu", "", 0.66, "a b c", True),
    ("ddu", "", 0.67, "c", False),
    # The share itself is allowed, also where it has no exact binary form.
    ("du", "", 0.5, "b", False),
    ("du", "", 0.49, "a b", True),
    ("ddddddduuu", "", 0.7, "h i j", False),
    ("dddddddduu", "", 0.7, "a b c d e f g h i j", True),
    ("du", "", 0, "a b", True),
    # All down is never a pool of nobody.
    ("ddd", "", 0.99, "a b c", True),
    ("d", "", 0.7, "a", True),
    # Who joins is not in, does not count, and is not let in because others are down.
    ("juu", "", 0.7, "b c", False),
    ("jdu", "", 0.5, "c", False),
    ("jjjjjddu", "", 0.66, "f g h", True),
    ("jdd", "", 0.7, "b c", True),
    # Nobody was ever ready: nginx finds out.
    ("jjj", "", 0.7, "a b c", True),
    ("j", "", 0.7, "a", True),
    # A drained one is out whatever it is, and counts for no share.
    ("uuu", "a", 0.7, "b c", False),
    ("duu", "a", 0.7, "b c", False),
    ("udu", "a", 0.5, "c", False),
    ("uddu", "a", 0.5, "b c d", True),
    ("uudddddddd", "a b", 0.7, "c d e f g h i j", True),
    ("ud", "a", 0.7, "b", True),
    ("uj", "a", 0.7, "b", True),
    ("ujd", "a", 0.7, "c", True),
    # All drained would be nobody.
    ("uuu", "a b c", 0.7, "a b c", True),
    ("ddd", "a b c", 0.7, "a b c", True),
    # Somebody drained a backend that is not in this pool any more.
    ("uu", "gone", 0.7, "a b", False),
]


@pytest.mark.parametrize(("letters", "drained", "share", "who", "kept"), CASES)
def test_who_is_asked(letters: str, drained: str, share: float, who: str, *, kept: bool) -> None:
    words = {"u": "up", "d": "down", "j": "joining"}
    states = {chr(97 + number): words[letter] for number, letter in enumerate(letters)}
    made = make(states, drained=drained, share=share)
    assert (asked(made), made.kept) == (who, kept)
    # nginx may leave out by itself whom it is given without being ready, and no others.
    assert {one.server.name for one in made.places if one.doubted} == {
        name for name in who.split() if states[name] != "up"
    }


def test_who_is_not_asked_has_its_reason() -> None:
    made = make({"a": "down", "b": "joining", "c": "up", "d": "up"}, drained="d")
    assert reasons(made) == {"a": "down", "b": "joining", "d": "drained"}


def test_backups_stay_backups_until_they_are_promoted() -> None:
    states = {"a": "up", "b+": "up", "c+": "down"}
    quiet = make(states)
    assert [place.server.backup for place in quiet.places] == [False, True, True]
    busy = make(states, promote=True)
    assert [place.server.backup for place in busy.places] == [False, False, False]
    assert (asked(busy), busy.promoted, quiet.promoted) == ("a b", True, False)


def test_who_has_no_address_is_asked_only_where_nobody_has_one() -> None:
    """nginx would refuse the whole pool."""
    a, b = (replace(server, address=f"{server.name}.invalid") for server in servers("a", "b"))
    (c,) = servers("c")
    for pool, who in (((a, b, c), "c"), ((a, b), "a b")):
        made = plan.make(
            pool, dict.fromkeys("abc", "joining"), drained=(), max_removed_share=0.7, promote=False
        )
        assert asked(made) == who


@pytest.mark.parametrize(
    ("state", "drained"), [("down", ""), ("joining", ""), ("joining", "a"), ("down", "a")]
)
def test_who_is_out_without_an_address_is_not_in_the_file(state: str, drained: str) -> None:
    """nginx looks up also who is down."""
    (a,), (_, b, c) = servers("a"), servers("-", "b", "c")
    pool = (replace(a, address="a.invalid"), b, c)
    for others, share in (("up", 0.7), ("down", 0.1)):
        made = plan.make(
            pool, {"a": state, "b": others, "c": others}, drained=drained.split(),
            max_removed_share=share, promote=False,
        )  # fmt: skip
        assert (made.places[0].reason, asked(made)) == ("joining", "b c")


def test_a_backup_is_one_of_those_that_are_left() -> None:
    assert asked(make({"a": "down", "b": "down", "c+": "up"})) == "c"


@pytest.mark.parametrize(
    ("letters", "drained", "share", "backups"),
    [
        # nginx would ask all that are down before the backup that is ready.
        ("dddd+u", "", 0.7, "a b c d"),
        ("dddd+u", "a", 0.7, "b c d"),
        # Else what is a backup stays one.
        ("dddu+u", "", 0.5, "e"),
        ("dddd+d", "", 0.7, "e"),
        ("d+u", "", 0.7, "b"),
    ],
)
def test_where_backups_alone_are_ready_those_that_are_kept_stand_in_for_them(
    letters: str, drained: str, share: float, backups: str
) -> None:
    words = {"u": "up", "d": "down"}
    primaries, _, others = letters.partition("+")
    names = [chr(97 + number) for number in range(len(primaries + others))]
    names[len(primaries) :] = [f"{name}+" for name in names[len(primaries) :]]
    states = {name: words[letter] for name, letter in zip(names, primaries + others, strict=True)}
    made = make(states, drained=drained, share=share)
    asked_last = [place.server.name for place in made.places if place.asked and place.server.backup]
    assert " ".join(asked_last) == backups


# By hash nginx knows no backups: they are asked while nobody else is, or when they are promoted.
RESTING = [
    ({"a": "up", "b+": "up"}, "", False, "a"),
    ({"a": "down", "b+": "up"}, "", False, "b+"),
    ({"a": "up", "b+": "up"}, "a", False, "b+"),
    ({"a": "joining", "b+": "up"}, "", False, "b+"),
    ({"a": "up", "b+": "up"}, "", True, "a b+"),
    # Too few are left: nobody rests.
    ({"a": "down", "b": "down", "c": "down", "d+": "up"}, "", False, "a b c d+"),
    ({"a": "up", "b+": "down"}, "", False, "a"),
]


@pytest.mark.parametrize("balance", ["least_conn", "hash"])
def test_without_backups_none_are_promoted(balance: str) -> None:
    made = make({"a": "up", "b": "down"}, promote=True, balance=balance)
    assert (made.promoted, asked(made)) == (False, "a")


@pytest.mark.parametrize(("states", "drained", "promote", "who"), RESTING)
def test_backups_rest_where_requests_are_spread_by_hash(
    states: dict[str, str], drained: str, who: str, *, promote: bool
) -> None:
    made = make(states, drained=drained, promote=promote, balance="hash")
    assert asked(made) == who.replace("+", "")
    assert made.balance == "hash"
    if who == "a" and states["b+"] == "up":
        assert reasons(made) == {"b": "resting"}


@given(
    seen=st.lists(
        st.tuples(st.sampled_from(["up", "down", "joining"]), st.booleans()), min_size=1, max_size=9
    ),
    share=st.floats(min_value=0, max_value=0.99),
    promote=st.booleans(),
)
def test_somebody_is_always_asked_and_never_too_few(
    *, seen: list[tuple[str, bool]], share: float, promote: bool
) -> None:
    states = {f"b{number}": state for number, (state, _) in enumerate(seen)}
    drained = [f"b{number}" for number, (_, out) in enumerate(seen) if out]
    made = make(states, drained=" ".join(drained), share=share, promote=promote)
    assert asked(made)
    candidates = [name for name in states if name not in drained]
    failed = [name for name in candidates if states[name] == "down"]
    ready = [name for name in candidates if states[name] == "up"]
    left_out = [name for name in failed if reasons(made).get(name) == "down"]
    assert len(left_out) <= share * (len(failed) + len(ready)) + 1e-6
    assert not set(ready) & reasons(made).keys()
    if candidates:
        assert set(drained) <= reasons(made).keys()
