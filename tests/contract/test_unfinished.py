"""What is left of uploads that did not come to their end: found, told, removed when it is old, on every store."""

import pytest
from store_access import content, keys, part_size

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.operations.collector import LASTING, Collector
from backupagent.operations.report_care import CollectReport
from backupagent.progress import Progress
from backupagent.settings import GcSettings, TransferSettings
from backupagent.snapstore import SnapStore
from backupagent.snapstore.unfinished import UnfinishedKind, find_unfinished
from backupagent.stores.base import ObjectStore, Upload
from backupagent.transfer.context import Transfer

KEY = "v2/Full-00000000-00000005-1795400591"
HOUR_S = 3600.0


@pytest.fixture
def snapstore(store: ObjectStore) -> SnapStore:
    return SnapStore(store, "")


def collect(snapstore: SnapStore, *, older_than: float = 0.0, dry_run: bool = False) -> CollectReport:
    settings = GcSettings(store="s", incomplete=True, older_than=older_than, dry_run=dry_run)
    return Collector(snapstore, settings, Transfer(TransferSettings(), Cancel(), Progress())).run()


def begin(snapstore: SnapStore, key: str = KEY) -> Upload:
    upload = snapstore.store.begin_upload(key, part_size=part_size(snapstore.store))
    snapstore.store.upload_part(upload, 1, content(part_size(snapstore.store)))
    return upload


def remember(snapstore: SnapStore, name: str, upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write an entry as the process of another machine does: of one of this machine it is known that it lives."""
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "elsewhere")
        snapstore.journal.remember(name, upload, now_s=SYSTEM_CLOCK.now().timestamp())


def test_a_killed_copy_leaves_an_upload_and_its_entry_and_both_go(
    snapstore: SnapStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(snapstore)
    remember(snapstore, "entry", upload, monkeypatch)
    (found,) = find_unfinished(snapstore)
    assert (found.kind, found.key, found.upload, found.held) == (
        UnfinishedKind.UPLOAD,
        KEY,
        upload,
        part_size(snapstore.store),
    )
    assert not found.in_use
    assert collect(snapstore, older_than=HOUR_S).removed == ()
    (told,) = collect(snapstore, dry_run=True).removed
    assert len(find_unfinished(snapstore)) == 1, "a dry run removes nothing"
    report = collect(snapstore)
    assert [(each.key, each.bytes) for each in report.removed] == [(KEY, part_size(snapstore.store))]
    assert told.key == KEY
    assert (LASTING in report.removed[0].note) == snapstore.store.features.lasting_parts
    assert report.bytes == part_size(snapstore.store)
    assert find_unfinished(snapstore) == []
    assert list(snapstore.store.list_uploads("")) == []
    assert keys(snapstore.store, "manifests/") == []


def test_an_upload_that_was_never_remembered_goes_too(snapstore: SnapStore) -> None:
    begin(snapstore)
    (kept,) = collect(snapstore, older_than=HOUR_S).kept
    assert kept.age_s is not None
    assert kept.age_s < HOUR_S / 2
    assert len(collect(snapstore).removed) == 1
    assert find_unfinished(snapstore) == []


def test_entries_whose_upload_is_gone_or_that_make_no_sense_go(
    snapstore: SnapStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(snapstore)
    remember(snapstore, "entry", upload, monkeypatch)
    snapstore.store.abort_upload(upload)
    snapstore.store.put("manifests/uploads/odd.json", b"{")
    assert {found.kind for found in find_unfinished(snapstore)} == {UnfinishedKind.ENTRY}
    report = collect(snapstore)
    assert [each.key for each in report.removed] == ["manifests/uploads/entry.json", "manifests/uploads/odd.json"]
    assert keys(snapstore.store, "manifests/") == []


def test_snapshots_manifests_and_the_uploads_of_others_stay(snapstore: SnapStore) -> None:
    snapstore.store.put(KEY, b"snapshot")
    snapstore.store.put("manifests/name.json", b"{}")
    other = snapstore.store.begin_upload("elsewhere/file", part_size=part_size(snapstore.store))
    report = collect(snapstore)
    assert (report.removed, report.kept) == ((), ())
    assert keys(snapstore.store) == ["manifests/name.json", KEY]
    assert [upload.id for upload in snapstore.store.list_uploads("elsewhere/")] == [other.id]
