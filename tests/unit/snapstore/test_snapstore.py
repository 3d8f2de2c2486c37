"""Snapshots by name: where they lie, what is known about them, what is left behind."""

import pytest

from backupagent import failpoints
from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import MalformedContent, NameMismatch, StoreUnavailable
from backupagent.model.manifest import FORMAT, MAX_METADATA_SIZE, Manifest
from backupagent.model.snapshot import StoredSnapshot
from backupagent.snapstore import Layout, SnapStore
from backupagent.snapstore.store import MAX_MANIFEST_SIZE
from backupagent.stores import open_store, parse_location
from backupagent.stores.local import LocalStore
from backupagent.stores.memory import MemoryStore
from backupagent.testing.faulty import Fault, FaultyStore

FULL = "Full-00000000-00000005-1767225600.gz"
DELTA = "Incr-00000006-00000007-1767225600.gz"


def found(where: SnapStore, name: str) -> StoredSnapshot:
    return next(stored for stored in where.list().snapshots if stored.name == name)


@pytest.fixture
def where() -> SnapStore:
    snapstore = SnapStore(MemoryStore(), "/a/b/")
    for name in (FULL, DELTA):
        snapstore.store.put(snapstore.layout.snapshot(name), b"x")
    return snapstore


# ---- keys


def test_keys_below_a_prefix() -> None:
    layout = Layout("a/b")
    assert (layout.root, layout.snapshots, layout.manifests) == ("a/b/", "a/b/v2/", "a/b/manifests/")
    assert layout.uploads == "a/b/manifests/uploads/"
    assert (layout.snapshot("n"), layout.manifest("n")) == ("a/b/v2/n", "a/b/manifests/n.json")


def test_keys_without_a_prefix() -> None:
    layout = Layout("")
    assert (layout.root, layout.snapshot("n"), layout.manifest("n")) == ("", "v2/n", "manifests/n.json")


def test_a_listing_knows_snapshots_strangers_and_manifests(where: SnapStore) -> None:
    for key in ("a/b/v2/stranger", "a/b/v2/deeper/Full-00000000-00000005-1.gz", "a/bc/v2/" + FULL, "a/b/manifests/x"):
        where.store.put(key, b"x")
    where.save_manifest(Manifest(format=FORMAT, name=FULL, kind="Full"))
    where.store.put("a/b/manifests/uploads/u.json", b"x")
    listing = where.list()
    assert [stored.name for stored in listing.snapshots] == [FULL, DELTA]
    assert (listing.unreadable, listing.manifests) == (("a/b/v2/stranger",), {FULL})


def test_snapshots_of_the_first_layout_are_read_where_the_second_has_none_of_that_name(where: SnapStore) -> None:
    older = "Full-00000000-00000003-1767225000"
    for key in (
        f"a/b/v1/Backup-1767225000/{older}",
        f"a/b/v1/Backup-1767225000/{FULL}",  # also in the second layout
        f"a/b/v1/Backup-1767225000/{older}/0000000001",  # a part of the peer's
        "a/b/v1/elsewhere/Full-00000000-00000004-1767225000",
        f"a/bc/v1/Backup-1767225000/{DELTA}",
    ):
        where.store.put(key, b"x")
    listing = where.list()
    assert [stored.key for stored in listing.snapshots] == [
        f"a/b/v2/{FULL}",
        f"a/b/v2/{DELTA}",
        f"a/b/v1/Backup-1767225000/{older}",
    ]
    assert listing.unreadable == ()


# ---- the hint for an empty prefix


@pytest.mark.parametrize(("asked", "told"), [("a/b", "'a/bc'"), ("", "'a/bc'"), ("a/bcd", "PREFIX")])
def test_an_empty_prefix_names_one_that_begins_alike(asked: str, told: str) -> None:
    store = MemoryStore()
    for key in ("a/b/readme", "a/bc/readme", f"a/bc/v2/{FULL}"):
        store.put(key, b"x")
    snapstore = SnapStore(store, asked)
    error = snapstore.empty(snapstore.list())
    assert told in error.hint


def test_strangers_below_an_empty_prefix_are_no_other_prefix() -> None:
    snapstore = SnapStore(MemoryStore(), "a/b")
    snapstore.store.put("a/b/v2/stranger", b"x")
    assert snapstore.empty(snapstore.list()).hint == snapstore.empty(snapstore.list()).default_hint


def test_a_hint_is_never_the_reason_of_a_failure() -> None:
    gone = StoreUnavailable("planned", op="list")
    faulty = FaultyStore(MemoryStore(), Fault("list_objects", nth=4, error=gone))
    snapstore = SnapStore(faulty, "a/b")
    error = snapstore.empty(snapstore.list())
    faulty.assert_all_hit()
    assert error.hint == error.default_hint


# ---- manifests


def test_manifests_as_objects_and_as_metadata(where: SnapStore) -> None:
    assert where.manifest(found(where, FULL), where.list()) is None
    assert where.manifest(found(where, DELTA), where.list()) is None
    full = Manifest(format=FORMAT, name=FULL, kind="Full", revision=5)
    delta = Manifest(format=FORMAT, name=DELTA, kind="Incr", revision=7)
    where.save_manifest(full)
    where.store.put(where.layout.snapshot(DELTA), b"x", metadata=where.metadata_for(delta))
    assert where.manifest(found(where, FULL), where.list()) == full
    assert where.manifest(found(where, DELTA), where.list()) == delta


def test_metadata_has_no_room_for_many_leases_and_some_stores_have_none(where: SnapStore, tmp_path) -> None:
    small = Manifest(format=FORMAT, name=DELTA, kind="Incr")
    large = Manifest(format=FORMAT, name=DELTA, kind="Incr", leases={str(10**18 + number): 1 for number in range(90)})
    assert where.metadata_for(small)
    assert sum(map(len, where.metadata_for(small).values())) <= MAX_METADATA_SIZE
    assert where.metadata_for(large) == {}
    directory = SnapStore(LocalStore(tmp_path), "")
    assert directory.metadata_for(small) == {}
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / DELTA).touch()
    assert directory.manifest(found(directory, DELTA), directory.list()) is None


@pytest.mark.parametrize("text", [b"", b"{}", b'{"format":"\xff"}', b'{"x":' + b"[" * 10_000, b"\x00"])
def test_a_manifest_that_cannot_be_read(text: bytes, where: SnapStore) -> None:
    where.store.put(where.layout.manifest(FULL), text)
    with pytest.raises(MalformedContent, match=f"manifests/{FULL}.json"):
        where.manifest(found(where, FULL), where.list())


def test_a_manifest_of_another_snapshot(where: SnapStore) -> None:
    other = Manifest(format=FORMAT, name=f"{DELTA}.x", kind="Incr")
    where.store.put(where.layout.snapshot(DELTA), b"x", metadata=where.metadata_for(other))
    with pytest.raises(NameMismatch, match=f"v2/{DELTA}: its manifest is that of {DELTA}.x"):
        where.manifest(found(where, DELTA), where.list())


def test_a_huge_manifest_is_not_read(where: SnapStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backupagent.snapstore.store.MAX_MANIFEST_SIZE", 10)
    assert MAX_MANIFEST_SIZE > 10
    where.store.put(where.layout.manifest(FULL), b"12345678901")
    with pytest.raises(MalformedContent, match="a manifest of 11 bytes"):
        where.manifest(found(where, FULL), where.list())


# ---- leftovers


def test_leftovers_of_killed_writers_are_removed_and_remembered_uploads_stay(tmp_path) -> None:
    where = SnapStore(LocalStore(tmp_path), "")
    kept = where.store.begin_upload("v2/kept", part_size=10)
    where.journal.remember("kept", kept, now_s=SYSTEM_CLOCK.now().timestamp())
    lost = where.store.begin_upload("v2/lost", part_size=10)
    put = tmp_path / "v2" / f"put.{'0' * 16}.part"
    put.touch()
    where.remove_leftovers()
    assert where.store.list_uploads("") == [kept]
    assert not put.exists()
    assert lost.id != kept.id


def test_entries_of_the_journal_that_make_no_sense_remember_nothing(tmp_path) -> None:
    where = SnapStore(LocalStore(tmp_path), "")
    upload = where.store.begin_upload("v2/lost", part_size=10)
    for name, text in (("a", b"{}"), ("b", b"")):
        where.store.put(f"manifests/uploads/{name}.json", text)
    assert where.journal.uploads() == set()
    where.remove_leftovers()
    assert where.store.list_uploads("") == []
    assert upload.key == "v2/lost"


def test_where_uploads_may_be_anybodys_nothing_is_removed() -> None:
    where = SnapStore(MemoryStore(), "")
    upload = where.store.begin_upload("v2/somebody", part_size=10)
    where.remove_leftovers()
    assert where.store.list_uploads("") == [upload]


def test_a_directory_that_is_not_there_yet_is_an_empty_target_and_no_source(tmp_path) -> None:
    location = parse_location((tmp_path / "new" / "store").as_uri())
    target = SnapStore(open_store(location, create=True), "")
    target.remove_leftovers()
    assert target.list().snapshots == ()
    assert not (tmp_path / "new").exists()
    target.store.put("v2/x", b"x")
    assert (tmp_path / "new" / "store").stat().st_mode & 0o777 == 0o700
    assert [info.key for info in open_store(location).list_objects("")] == ["v2/x"]
    failpoints.hit("copy.discover")
