"""The rules of what belongs to a copy, one test each; those of order and of skipping are in test_copier.py."""

import pytest
from copying import copy
from snapshot_fakes import NOW, WaitingCancel, add_chain, add_delta, add_full, names, read, store

from backupagent.clock import FakeClock
from backupagent.errors import EmptySource
from backupagent.operations.copier import Copier
from backupagent.operations.final import UNKNOWN_REVISION
from backupagent.operations.report import CopyReport
from backupagent.progress import Progress
from backupagent.settings import CopySettings, OnMissingFinal, TransferSettings
from backupagent.snapstore import SnapStore
from backupagent.transfer.context import Transfer

DAY_S = 24 * 3600


def test_pieces_that_the_peer_left_of_an_upload_are_no_snapshots() -> None:
    source, target = store(), store()
    chain = add_chain(source, 5, 7)
    for key in (
        f"p/v2/{chain[0]}/0000000001",
        f"p/v1/Backup-1/{chain[1]}/0000000001",
        "p/v2/Full-00000000-00000099-1/1",
    ):
        source.store.put(key, b"a piece")
    report = copy(source, target)
    assert (report.copied, names(target)) == (2, chain)
    assert [info.key for info in target.store.list_objects("p/v2/")] == [f"p/v2/{name}" for name in chain]


@pytest.mark.parametrize("sibling", ["pp", "p-2", "p/v2x", "p/v22", "other"])
def test_a_prefix_ends_at_a_path_boundary(sibling: str) -> None:
    source, target = store(), store()
    chain = add_chain(source, 5, 7)
    source.store.put(f"{sibling}/v2/Full-00000000-00000099-1", b"of a neighbour")
    source.store.put(f"{sibling}/Full-00000000-00000098-1", b"of a neighbour")
    copy(source, target)
    assert names(target) == chain


def test_only_a_neighbour_is_an_empty_source() -> None:
    source, target = store(), store()
    source.store.put("pp/v2/Full-00000000-00000099-1", b"of a neighbour")
    with pytest.raises(EmptySource, match="there is no snapshot") as raised:
        copy(source, target)
    assert "'pp'" in raised.value.hint
    assert list(target.store.list_objects("")) == []


def test_number_and_age_count_together() -> None:
    source, target = store(), store()
    add_full(source, 5, age_s=4 * DAY_S)
    kept = [add_full(source, 10, age_s=2 * DAY_S), add_full(source, 15, age_s=DAY_S), add_full(source, 20)]
    copy(source, target, max_backups=3, max_backup_age=3 * DAY_S)
    assert names(target) == kept
    fewer = store()
    copy(source, fewer, max_backups=2, max_backup_age=3 * DAY_S)
    assert names(fewer) == kept[1:]


# ---- what is given up without a final snapshot


def give_up(source: SnapStore, **options) -> CopyReport:
    clock = FakeClock(NOW)
    settings = CopySettings(source="s", target="t", wait_for_final=5, on_missing_final=OnMissingFinal.COPY, **options)
    transfer = Transfer(TransferSettings(workers=1), WaitingCancel(clock), Progress(clock), clock)
    return Copier(source, store(), settings, transfer).run()


@pytest.mark.parametrize(
    ("ends", "options", "first"),
    [
        ((), {}, 6),
        ((7, 9), {}, 10),
        ((7, 9), {"newest_chain_only": True}, 10),
        ((7, 9), {"max_backups": 1}, 10),
        ((7, 9), {"shard": "0/2"}, 10),
    ],
)
def test_everything_after_the_last_revision_that_is_there_is_given_up(
    ends: tuple[int, ...], options: dict[str, object], first: int
) -> None:
    source = store()
    add_full(source, 3)
    add_chain(source, 5, *ends)
    assert give_up(source, **options).given_up_revisions == (first, UNKNOWN_REVISION)


def test_what_came_after_an_old_final_snapshot_counts_too() -> None:
    source = store()
    add_full(source, 5, final=True)
    for last in (10, 20, 30, 40):
        add_full(source, last)
    add_delta(source, 41, 44)
    assert give_up(source).given_up_revisions == (45, UNKNOWN_REVISION)


def test_with_a_final_snapshot_nothing_is_given_up_and_its_mark_is_dropped() -> None:
    source, target = store(), store()
    name = add_full(source, 5, final=True)
    assert give_up(source).given_up_revisions is None
    copy(source, target)
    (copied,) = names(target)
    assert copied == name.removesuffix(".final")
    assert read(target, f"p/v2/{copied}") == read(source, f"p/v2/{name}")
