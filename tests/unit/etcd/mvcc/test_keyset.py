"""The compact set of hashes is a set."""

import random

import pytest

from backupagent.etcd.mvcc import keyset
from backupagent.etcd.mvcc.keyset import HashSet

SEED = 11


@pytest.mark.parametrize("recent", [1, 7, 500, 100_000])
def test_it_holds_what_was_added_and_nothing_else(monkeypatch: pytest.MonkeyPatch, recent: int) -> None:
    monkeypatch.setattr(keyset, "_RECENT", recent)
    rng = random.Random(SEED)
    marks = [rng.randrange(-(2**63), 2**63) for _ in range(3000)] + [0, -1, 2**63 - 1, -(2**63)]
    added, absent = marks[::2], marks[1::2]
    found = HashSet()
    for mark in added[:20] if recent == 1 else added:
        assert mark not in found
        found.add(mark)

    assert found.is_disjoint(absent)
    assert not found.is_disjoint([*absent, added[0]])
    assert all(mark in found for mark in (added[:20] if recent == 1 else added))
    assert not any(mark in found for mark in absent)
