"""Places for requests that wait on upstreams."""

from __future__ import annotations

import pytest

from modhaven import protocol
from modhaven.bulkhead import Bulkhead, Bulkheads, FullError
from modhaven.settings import Limits


def test_a_place_is_free_again_whatever_happened() -> None:
    bulkhead = Bulkhead("zip", 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), bulkhead.place():
            _ = 1 / (bulkhead.taken - 1)
    assert bulkhead.taken == 0


def test_who_finds_no_place_is_told_at_once_and_takes_none() -> None:
    bulkhead = Bulkhead("zip", 2)
    with bulkhead.place(), bulkhead.place():
        with pytest.raises(FullError, match="2 zip requests"), bulkhead.place():
            pass
        assert bulkhead.taken == 2
    with bulkhead.place():
        pass


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/rsc.io/quote/@v/v1.5.2.zip", "zip"),
        ("/rsc.io/quote/@v/v1.5.2.mod", "file"),
        ("/rsc.io/quote/@v/v1.5.2.info", "file"),
        ("/sumdb/sum.golang.org/lookup/rsc.io/quote@v1.5.2", "file"),
        ("/rsc.io/quote/@v/list", "mutable"),
        ("/rsc.io/quote/@latest", "mutable"),
        ("/rsc.io/quote/@v/master.info", "mutable"),
        ("/sumdb/sum.golang.org/latest", "mutable"),
    ],
)
def test_each_kind_has_its_own(path: str, name: str) -> None:
    bulkheads = Bulkheads(Limits(zip_requests=1, file_requests=1, mutable_requests=1))
    with bulkheads.place(protocol.parse(path)):
        assert {bulkhead.name: bulkhead.taken for bulkhead in bulkheads} == {
            "zip": 0, "file": 0, "mutable": 0, name: 1,
        }  # fmt: skip
