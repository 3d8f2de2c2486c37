"""What a restore makes of a store, and what it refuses; whether etcd starts from it is an integration test."""

import errno
import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest
from snapshot_fakes import add_delta, add_full, damage, golden, read, store, transfer

from backupagent import failpoints
from backupagent.cancel import Cancel
from backupagent.errors import (
    Cancelled,
    ChecksumMismatch,
    ConfigError,
    ConflictingDeltas,
    DataDirNotEmpty,
    EmptySource,
    EtcdError,
    IntegrityError,
    MalformedContent,
    NameMismatch,
    NoSpace,
    NotEqual,
    RevisionGap,
)
from backupagent.etcd.mvcc.lease import Lease
from backupagent.etcd.restored_db import RestoredDb
from backupagent.model.manifest import FORMAT, METADATA_KEY, Manifest, encode_manifest
from backupagent.operations.report import LeaseCount, RestoreReport
from backupagent.operations.restorer import Restorer
from backupagent.settings import LeasePolicy, RestoreSettings
from backupagent.snapstore import SnapStore

FULL = "Full-00000000-00000006-1795400591.gz"
LEASED = "Incr-00000020-00000025-1795400599.gz"
LEASE = 5293878034570456094
"""The one lease of the golden bucket that is first seen in a delta and still there at the end."""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "new.etcd"


def restore(where: SnapStore, data_dir: Path, *, cancel: Cancel | None = None, **options: object) -> RestoreReport:
    settings = RestoreSettings(store="memory://m/p", data_dir=data_dir, **options)
    return Restorer(where, settings, transfer(cancel=cancel)).run()


def assert_nothing_left(data_dir: Path) -> None:
    assert [path.name for path in data_dir.parent.glob(f"{data_dir.name}*")] == []


def add_manifest(where: SnapStore, **fields: object) -> None:
    """Give the golden full a manifest."""
    where.save_manifest(Manifest(format=FORMAT, name=FULL, kind="Full", **fields))


def granted(data_dir: Path) -> dict[int, int]:
    """Read every lease and its granted time to live."""
    with RestoredDb.open(data_dir / "member" / "snap" / "db", name="db") as db:
        leases = [Lease.decode(element.value, "lease") for element in db._base_leases()]
    return {lease.id: lease.ttl_s for lease in leases}


# ---- the report


@pytest.mark.parametrize("compression", ["none", "gzip", "zlib-final", "lzw-final"])
def test_the_golden_buckets(compression: str, data_dir: Path) -> None:
    where = golden(compression)
    report = restore(where, data_dir, hash_compact_revision=25)
    path = Path(__file__).parents[2] / "golden" / compression / "etcd-final-hashkv.json"
    (answer,) = json.loads(path.read_text())
    expected = answer["HashKV"]
    assert report.hash_kv == expected["hash"]
    assert (report.revision, report.compact_revision) == (expected["header"]["revision"], expected["compact_revision"])
    assert report.matches_manifest is None
    assert report.data_dirs == (str(data_dir),)
    names = ["discover", "base", "deltas", "finish", "verify", "publish"]
    assert [phase.name for phase in report.phases] == names
    sizes = [stored.size for stored in where.list().snapshots]
    read_bytes = {phase.name: phase.bytes for phase in report.phases}
    assert 0 < read_bytes["base"] + read_bytes["deltas"] <= sum(sizes)


def test_the_directory_is_for_its_owner_alone(data_dir: Path) -> None:
    restore(golden("gzip"), data_dir)
    modes = {path.stat().st_mode & 0o777 for path in data_dir.rglob("*")}
    assert (data_dir.stat().st_mode & 0o777, modes) == (0o700, {0o700, 0o600})


def test_members_by_their_names(data_dir: Path) -> None:
    cluster = "a=http://127.0.0.2:2380,b=http://127.0.0.3:2380"
    urls = {"initial_cluster": cluster, "name": "b"}
    two = restore(golden("gzip"), data_dir, **urls, initial_advertise_peer_urls="http://127.0.0.3:2380")
    one = restore(golden("gzip"), data_dir.with_name("one"))
    assert two.cluster_id != one.cluster_id
    with pytest.raises(ConfigError):
        restore(golden("gzip"), data_dir.with_name("three"), **urls, initial_advertise_peer_urls="http://127.0.0.9:1")
    with pytest.raises(ConfigError):
        restore(golden("gzip"), data_dir.with_name("three"), initial_cluster=cluster, name="c")
    assert_nothing_left(data_dir.with_name("three"))


# ---- leases


def test_leases_of_deltas_are_made_anew_with_a_guessed_time_to_live(data_dir: Path) -> None:
    report = restore(golden("gzip"), data_dir, lease_ttl=77.4)
    assert report.leases == LeaseCount(kept=1, synthesized=1, guessed_ttl=1, dangling=0)
    assert granted(data_dir)[LEASE] == 77


def test_a_time_to_live_that_a_manifest_remembers_is_not_guessed(data_dir: Path) -> None:
    where = golden("gzip")
    key = where.layout.snapshot(LEASED)
    manifest = Manifest(format=FORMAT, name=LEASED, kind="Incr", leases={str(LEASE): 1234, "1": 5})
    where.store.put(key, read(where, key), metadata={METADATA_KEY: encode_manifest(manifest).decode()})
    report = restore(where, data_dir)
    assert report.leases == LeaseCount(kept=1, synthesized=1, guessed_ttl=0, dangling=0)
    assert granted(data_dir)[LEASE] == 1234


@pytest.mark.parametrize(("policy", "dangling"), [(LeasePolicy.KEEP, 1), (LeasePolicy.STRIP, 0)])
def test_leases_that_are_not_made_anew(policy: LeasePolicy, dangling: int, data_dir: Path) -> None:
    report = restore(golden("gzip"), data_dir, leases=policy)
    assert report.leases == LeaseCount(kept=1, synthesized=0, guessed_ttl=0, dangling=dangling)
    assert LEASE not in granted(data_dir)
    same = restore(golden("gzip"), data_dir.with_name("other")).hash_kv == report.hash_kv
    assert same == (policy is LeasePolicy.KEEP)


# ---- what is compared with the manifest


def test_a_recorded_hash_is_found_again(data_dir: Path) -> None:
    where = golden("gzip")
    for stored in where.list().snapshots[1:]:
        where.store.delete(stored.key)
    alone = restore(where, data_dir.with_name("alone"))
    add_manifest(where, revision=6, hash_kv=alone.hash_kv, hash_kv_revision=6, compact_revision=alone.compact_revision)
    assert restore(where, data_dir).matches_manifest is True
    golden("gzip", where)
    longer = restore(where, data_dir.with_name("longer"))
    assert (longer.matches_manifest, longer.revision) == (True, 30)
    add_manifest(where, revision=6, hash_kv=1, hash_kv_revision=6, compact_revision=-1)
    with pytest.raises(NotEqual, match=rf"{FULL}: HashKV at revision 6 \(compacted at -1\) is {alone.hash_kv}"):
        restore(where, data_dir.with_name("wrong"))
    assert_nothing_left(data_dir.with_name("wrong"))


def test_a_manifest_with_another_revision(data_dir: Path) -> None:
    where = golden("gzip")
    add_manifest(where, revision=7)
    with pytest.raises(NameMismatch, match="ends at revision 6, its manifest says 7"):
        restore(where, data_dir)
    assert_nothing_left(data_dir)


def test_a_manifest_finds_a_hole_before_anything_is_read(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = golden("gzip")
    add_manifest(where, revision=6)
    where.store.delete(where.layout.snapshot("Incr-00000012-00000017-1795400593.gz"))
    monkeypatch.setattr(Restorer, "_build", None)
    with pytest.raises(RevisionGap, match="revisions 12 to 17"):
        restore(where, data_dir)
    assert_nothing_left(data_dir)


def test_a_manifest_with_another_digest(data_dir: Path) -> None:
    where = golden("gzip")
    add_manifest(where, stored_sha256="0" * 64)
    with pytest.raises(ChecksumMismatch, match="its manifest says 000"):
        restore(where, data_dir)
    assert_nothing_left(data_dir)


# ---- what is refused


def test_a_store_without_a_full(data_dir: Path) -> None:
    where = store()
    with pytest.raises(EmptySource, match="there is no snapshot"):
        restore(where, data_dir)
    add_delta(where, 2, 3)
    with pytest.raises(EmptySource, match="1 delta snapshots but no full one"):
        restore(where, data_dir)


def test_a_full_that_is_no_database(data_dir: Path) -> None:
    where = store()
    name = add_full(where, 5, pages=4)
    with pytest.raises(MalformedContent, match=name):
        restore(where, data_dir)
    assert_nothing_left(data_dir)


@pytest.mark.parametrize("compression", ["none", "gzip", "zlib-final", "lzw-final"])
def test_a_damaged_delta(compression: str, data_dir: Path) -> None:
    where = golden(compression)
    (name,) = (stored.name for stored in where.list().snapshots if stored.snapshot.last == 25)
    damage(where, name)
    where.store.delete(next(stored.key for stored in where.list().snapshots if stored.snapshot.last == 30))
    with pytest.raises(IntegrityError, match=f"v2/{name}"):
        restore(where, data_dir)
    assert_nothing_left(data_dir)


def test_deltas_that_disagree(data_dir: Path) -> None:
    where = golden("gzip")
    name = add_delta(where, 7, 8)
    with pytest.raises(ConflictingDeltas, match=r"revision 7 differs|revision 8 differs") as raised:
        restore(where, data_dir)
    assert raised.value.key in {
        where.layout.snapshot(name),
        where.layout.snapshot("Incr-00000007-00000011-1795400593.gz"),
    }
    assert_nothing_left(data_dir)


def test_a_directory_with_something_in_it(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "mine").touch()
    with pytest.raises(DataDirNotEmpty):
        restore(golden("gzip"), data_dir)
    dangling = data_dir.with_name("link")
    dangling.symlink_to("nowhere")
    with pytest.raises(DataDirNotEmpty):
        restore(golden("gzip"), dangling)


def test_what_a_killed_restore_left_is_removed(data_dir: Path) -> None:
    unfinished = data_dir.with_name(f"{data_dir.name}.part")
    (unfinished / "member" / "wal").mkdir(parents=True)
    (unfinished / "member" / "wal" / "old").touch()
    restore(golden("gzip"), data_dir)
    assert not unfinished.exists()
    assert not (data_dir / "member" / "wal" / "old").exists()


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EtcdError, match=r"file/new\.etcd"):
        restore(golden("gzip"), tmp_path / "file" / "new.etcd")
    assert (tmp_path / "file").is_file()


def test_a_directory_that_cannot_be_looked_into(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir.mkdir()
    where = golden("gzip")

    def refuse(_path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(EtcdError, match=r"new\.etcd.*ermission denied") as raised:
        restore(where, data_dir)
    assert "permissions" in raised.value.hint


@pytest.mark.parametrize(
    "point", ["restore.base", "restore.delta", "restore.finish", "restore.raft", "restore.publish"]
)
def test_a_full_disk(point: str, data_dir: Path) -> None:
    failpoints.arm(f"{point}=nospace")
    with pytest.raises(NoSpace, match=data_dir.name):
        restore(golden("gzip"), data_dir)
    assert_nothing_left(data_dir)


def test_a_database_that_cannot_be_made(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def full(path: object, flags: int, *arguments: int, **options: int | None) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr("backupagent.operations.restorer.os.open", full)
    with pytest.raises(NoSpace):
        restore(golden("gzip"), data_dir)
    assert_nothing_left(data_dir)


def test_what_cannot_be_removed_is_told_beside_the_reason(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    failpoints.arm("restore.delta=nospace")
    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(NoSpace) as raised:
        restore(golden("gzip"), data_dir)
    (note,) = raised.value.__notes__
    assert f"{data_dir.name}.part could not be removed" in note


def test_it_stops_when_it_is_told_to(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = Cancel()

    def begin(_db: RestoredDb, _key: str) -> None:
        cancel.set("SIGTERM")

    monkeypatch.setattr(RestoredDb, "begin_delta", begin)
    with pytest.raises(Cancelled, match="SIGTERM"):
        restore(golden("gzip"), data_dir, cancel=cancel)
    assert_nothing_left(data_dir)


def test_a_report_is_json(data_dir: Path) -> None:
    document = restore(golden("gzip"), data_dir).to_json()
    assert json.loads(msgspec.json.encode(document))["leases"]["synthesized"] == 1
