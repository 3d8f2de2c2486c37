"""The newest chain first, and told at the moment from which the target can be restored."""

import pytest
from snapshot_fakes import RecordingStore, add_chain, add_delta, add_full, damage, names, read, store, transfer

from backupagent.errors import BackupAgentError, ChecksumMismatch
from backupagent.model.manifest import FORMAT, Manifest
from backupagent.operations.copier import Copier
from backupagent.operations.report import CopyReport
from backupagent.progress import Milestone
from backupagent.settings import CopySettings, VerifyMode
from backupagent.snapstore import SnapStore
from backupagent.stores.base import ObjectInfo


class Watched(RecordingStore):
    """A target whose every write takes a second, and which notes what had been told before it."""

    def __init__(self) -> None:
        super().__init__()
        self.transfer = transfer(workers=1)
        self.told_before: list[int] = []

    def put(self, *args, **kwargs) -> ObjectInfo:
        self.told_before.append(len(self.milestones))
        self.transfer.clock.sleep(1)
        return super().put(*args, **kwargs)

    @property
    def milestones(self) -> tuple[Milestone, ...]:
        return self.transfer.progress.view().milestones


def copy(source: SnapStore, target: Watched, *, verify: VerifyMode = VerifyMode.TRAILER, shard: str = "") -> CopyReport:
    settings = CopySettings(source="s", target="t", workers=1, verify=verify, shard=shard)
    return Copier(source, store(target), settings, target.transfer).run()


def test_it_is_told_when_the_last_of_the_newest_chain_is_there_and_before_older_history_moves() -> None:
    source, target = store(), Watched()
    add_chain(source, 5, 7)
    full, *_deltas = add_chain(source, 9, 12, 14)
    report = copy(source, target)
    # The full, its manifest, two deltas that carry theirs; then the older chain.
    assert target.told_before == [0, 0, 0, 0, 1, 1, 1]
    (told,) = target.milestones
    assert (told.what, told.bad) == ("restorable", False)
    assert told.detail == f"at memory://recording up to revision 14: {full} and 2 deltas, after 4.0 s"
    assert (report.newest_chain.last_revision, report.newest_chain.restorable_after_s) == (14, 4.0)


def test_with_reading_back_it_is_told_after_the_proof_which_comes_before_older_history() -> None:
    source, target = store(), Watched()
    add_chain(source, 5, 7)
    add_full(source, 9)
    report = copy(source, target, verify=VerifyMode.READ_BACK)
    assert [phase.name for phase in report.phases] == ["discover", "plan", *["transfer", "verify"] * 2]
    assert target.told_before == [0, 0, 1, 1, 1]
    assert report.newest_chain.restorable_after_s == 2.0


def test_what_is_there_already_counts() -> None:
    source, target = store(), Watched()
    add_chain(source, 5, 7)
    copy(source, target)
    add_delta(source, 8, 9)
    assert copy(source, target).newest_chain.restorable_after_s == 4.0
    assert len(target.milestones) == 2


def test_a_share_does_not_know_it() -> None:
    source, target = store(), Watched()
    add_chain(source, 5, 7)
    assert copy(source, target, shard="0/2").newest_chain.restorable_after_s is None
    assert target.milestones == ()


@pytest.mark.parametrize(
    ("bad", "hint"),
    [
        ("old full", "the newest chain is whole at the target, up to revision 12"),
        ("new full", "the target can be restored up to revision 12, from {old} with its deltas"),
        ("new delta", "the target can be restored up to revision 9, from {new} with its deltas"),
        ("middle", "the target cannot be restored from as it is: revisions 6 to 9 after {old} are missing"),
        ("fulls", "the target cannot be restored from: no full snapshot has arrived"),
    ],
)
def test_an_error_says_what_the_target_can_be_restored_to(bad: str, hint: str) -> None:
    source, target = store(), Watched()
    old, delta, new, last = *add_chain(source, 5, 9), *add_chain(source, 9, 12)
    spoilt = {"old full": [old], "new full": [new], "new delta": [last], "middle": [delta, new], "fulls": [old, new]}
    for name in spoilt[bad]:
        damage(source, name)
    with pytest.raises(BackupAgentError) as raised:
        copy(source, target)
    assert raised.value.hint.endswith(hint.format(old=old, new=new))
    assert (len(target.milestones) == 1) == (bad == "old full")


def test_a_copy_that_was_removed_again_is_not_there() -> None:
    source, target = store(), Watched()
    name = add_full(source, 5)

    def changed(key: str, data: bytes, **given) -> ObjectInfo:
        content = bytes(reversed(data)) if key.endswith(name) else data
        return RecordingStore.put(target, key, content, **given)

    target.put = changed  # type: ignore[method-assign]
    with pytest.raises(ChecksumMismatch, match="read back") as raised:
        copy(source, target, verify=VerifyMode.READ_BACK)
    assert raised.value.hint.endswith("no full snapshot has arrived")
    assert names(store(target)) == []
    assert target.milestones == ()


def test_a_manifest_that_came_after_its_full_reaches_the_target() -> None:
    source, target = store(), Watched()
    name = add_full(source, 5)
    copy(source, target)
    known = store(target).manifest(store(target).list().snapshots[0], store(target).list())
    assert known is not None
    assert known.hash_kv is None
    late = Manifest(
        format=FORMAT, name=name, kind="Full", stored_sha256=known.stored_sha256, hash_kv=77, leases={"5": 60}
    )
    source.save_manifest(late)
    written = len(target.written)
    assert copy(source, target).skipped == 1
    assert [key for key in target.written[written:] if "/v2/" in key] == []
    found = store(target).manifest(store(target).list().snapshots[0], store(target).list())
    assert found is not None
    assert (found.hash_kv, found.leases, found.source) == (77, {"5": 60}, known.source)
    again = len(target.written)
    copy(source, target)
    assert len(target.written) == again
    assert read(store(target), f"p/v2/{name}") == read(source, f"p/v2/{name}")
