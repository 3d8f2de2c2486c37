"""Planned histories: fixed by their seed, acceptable to etcd, and nasty enough."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.model.snapshot import SnapshotKind
from backupagent.testing.history import (
    SURVIVING,
    AwaitExpiry,
    Compact,
    Grant,
    RandomHistory,
    Restart,
    Revoke,
    Step,
    Take,
    Write,
)
from backupagent.testing.keyspace import Delete, Operation, Put

seeds = st.integers(0, 2**32)


def test_the_seed_alone_decides_the_plan() -> None:
    assert RandomHistory(7).plan() == RandomHistory(7).plan()
    assert RandomHistory(7).plan() != RandomHistory(8).plan()


@given(seeds)
def test_it_begins_with_a_full_and_ends_with_a_delta(seed: int) -> None:
    plan = RandomHistory(seed).plan()

    assert next(step for step in plan if isinstance(step, Take)) == Take(SnapshotKind.FULL)
    assert plan[-1] == Take(SnapshotKind.DELTA)


@given(seeds)
def test_history_is_compacted_only_right_after_a_snapshot(seed: int) -> None:
    assert all(
        isinstance(before, Take) for before, step in pairwise(RandomHistory(seed).plan()) if type(step) is Compact
    )


@given(seeds)
def test_no_transaction_puts_a_key_that_it_also_deletes(seed: int) -> None:
    for step in RandomHistory(seed).plan():
        if isinstance(step, Write):
            puts = [operation.key for operation in step.operations if isinstance(operation, Put)]
            assert len(puts) == len(set(puts))
            assert not any(covers(delete, key) for delete in step.operations for key in puts)


def covers(operation: Operation, key: bytes) -> bool:
    if not isinstance(operation, Delete):
        return False
    return operation.key <= key < operation.end if operation.end else key == operation.key


@given(seeds)
def test_keys_are_attached_only_to_leases_that_etcd_knows(seed: int) -> None:
    known: set[int] = set()
    for step in RandomHistory(seed).plan():
        match step:
            case Grant(lease):
                assert lease not in known
                known.add(lease)
            case Revoke(lease) | AwaitExpiry(lease):
                known.remove(lease)
            case Restart():
                known = {lease for lease in known if lease in SURVIVING}
            case Write(operations):
                assert {put.lease for put in operations if isinstance(put, Put)} <= known | {0}


def writes(steps: list[Step]) -> list[Operation]:
    return [operation for step in steps if isinstance(step, Write) for operation in step.operations]


@pytest.fixture(scope="module")
def many() -> list[Step]:
    return [step for seed in range(20) for step in RandomHistory(seed).plan()]


def test_twenty_histories_hold_every_kind_of_step(many: list[Step]) -> None:
    kinds = {Write, Grant, Revoke, AwaitExpiry, Compact, Take, Restart}
    assert {type(step) for step in many} == kinds


def test_twenty_histories_hold_what_breaks_formats(many: list[Step]) -> None:
    puts = [operation for operation in writes(many) if isinstance(operation, Put)]
    assert any(put.lease < 0 for put in puts)
    assert any(put.lease > 2**53 for put in puts)
    assert any(b"\0" in put.key for put in puts)
    assert any(len(put.key) > 1000 for put in puts)
    assert {0, 64 * 1024} <= {len(put.value) for put in puts}
    assert any(isinstance(operation, Delete) and operation.end for operation in writes(many))
    assert any(isinstance(step, Write) and {type(each) for each in step.operations} == {Put, Delete} for step in many)
