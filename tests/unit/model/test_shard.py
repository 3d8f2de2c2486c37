"""Shares: together everything, nothing twice, the same for everybody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.model.shard import Shard

NAMES = st.lists(st.integers(1, 10**9).map(lambda last: f"Incr-00000001-{last:08}-1795400591.gz"), unique=True)


@given(NAMES, st.integers(1, 40))
def test_every_snapshot_is_in_exactly_one_share(names: list[str], count: int) -> None:
    shards = [Shard.parse(f"{index}/{count}") for index in range(count)]
    for name in names:
        assert sum(shard.holds(name) for shard in shards) == 1


def test_a_share_does_not_depend_on_the_final_mark() -> None:
    name = "Full-00000000-00000042-1795400591.gz"
    for index in range(5):
        assert Shard(index, 5).holds(name) == Shard(index, 5).holds(f"{name}.final")


def test_shares_are_of_about_one_size() -> None:
    held = [sum(Shard(index, 4).holds(f"Incr-{n:08}-{n:08}-1795400591.gz") for n in range(4000)) for index in range(4)]
    assert min(held) > 850


def test_no_share_is_everything() -> None:
    assert Shard.parse("").holds("anything")


@pytest.mark.parametrize("text", ["1", "1/1", "2/1", "-1/2", "a/b", "0/0", "0/", "1/2/3", "\u0660/\u0661", "0/9999999"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a share"):
        Shard.parse(text)
