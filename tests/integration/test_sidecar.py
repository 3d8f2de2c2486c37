"""A real sidecar before a real etcd starts: what becomes of volumes."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sidecar_fixtures import Find, MakePair, backed_up, make_pair, pair, tree
from sidecar_pair import NAMESPACE, Pair, until

from backupagent.testing.servers import MinioServer

__all__ = ["backed_up", "make_pair", "pair"]  # fixtures

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

ETCDS = ("etcd-3.5", "etcd-3.6")
ONE_FULL, FULL_AND_DELTA = 1, 2


@pytest.fixture(scope="module")
def minio(server_binary: Find) -> Iterator[MinioServer]:
    with MinioServer(binary=server_binary("minio")) as server:
        yield server


@pytest.mark.parametrize("etcd", ETCDS)
@pytest.mark.parametrize("mode", ["full", "sanity"])
def test_a_fresh_volume_is_restored_and_etcd_starts_on_it(make_pair: MakePair, mode: str, etcd: str) -> None:
    old = make_pair(etcd=etcd)
    old.start()
    old.put("a", "b")
    assert old.sidecar.json("/snapshot/delta")["lastRevision"] == 3
    with old.client() as client:
        hashed = client.hash_kv()
    keys = old.keys()
    old.stop()

    new = make_pair(etcd=etcd)
    new.start(mode)
    assert new.keys() == keys
    with new.client() as client:
        assert client.hash_kv().hash == hashed.hash
    assert new.sidecar.metric("backupagent_restored_revision") == 3
    assert (new.volume / "safe_guard").read_text() == NAMESPACE
    assert not list(new.volume.glob("*.part"))


def test_a_bucket(make_pair: MakePair, minio: MinioServer, tmp_path: Path) -> None:
    minio.make_bucket("backups")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "accessKeyID").write_text(minio.access_key)
    (credentials / "secretAccessKey").write_text(minio.secret_key)
    uri = f"s3://backups/etcd-main?endpoint={minio.endpoint_url}&region={minio.REGION}&path-style=true&credentials={credentials}"
    old = make_pair(uri)
    old.start()
    old.put("a", "b")
    old.stop()
    assert len(old.names()) == FULL_AND_DELTA
    assert minio.secret_key not in old.sidecar.log
    new = make_pair(uri)
    new.start()
    assert set(new.keys()) == {"a", "b"}
    assert new.sidecar.json("/snapshot/latest")["fullSnapshot"]["prefix"] == "etcd-main/v2"


def test_a_fresh_volume_and_an_empty_store_are_a_new_etcd(pair: Pair) -> None:
    assert pair.initialize() == "Successful"
    assert not pair.data_dir.exists()
    pair.start_etcd()
    assert pair.keys() == {}
    assert len(pair.names()) == ONE_FULL


def test_without_a_store_there_are_no_backups(make_pair: MakePair) -> None:
    pair = make_pair("")
    pair.start()
    assert pair.put("a") == 2
    assert pair.sidecar.ask("/snapshot/full")[0] == 405
    assert pair.sidecar.ask("/snapshot/delta")[0] == 405
    assert pair.sidecar.json("/healthz") == {"health": True}


@pytest.mark.parametrize("mode", ["full", "sanity"])
def test_a_valid_volume_is_kept_with_what_no_backup_has(pair: Pair, mode: str) -> None:
    pair.start()
    pair.put("in-the-backup")
    pair.sidecar.json("/snapshot/delta")
    pair.put("nowhere-else")
    pair.sidecar.kill()
    pair.etcd.kill()  # what it has not flushed stands in its write-ahead log
    pair.start(mode)
    assert set(pair.keys()) == {"in-the-backup", "nowhere-else"}
    assert pair.sidecar.metric("backupagent_restored_revision") == 0
    until(lambda: pair.chains()[0].last_revision == 3, "a delta of what was missing")


def without_db(data_dir: Path) -> None:
    (data_dir / "member" / "snap" / "db").unlink()


def with_a_torn_db(data_dir: Path) -> None:
    with (data_dir / "member" / "snap" / "db").open("r+b") as file:
        file.truncate(4096)


def without_wal(data_dir: Path) -> None:
    shutil.rmtree(data_dir / "member" / "wal")


@pytest.mark.parametrize("damage", [without_db, with_a_torn_db, without_wal])
def test_an_invalid_volume_is_moved_aside_and_restored(backed_up: Pair, damage: Callable[[Path], None]) -> None:
    damage(backed_up.data_dir)
    before = {path.removeprefix(str(backed_up.data_dir)): data for path, data in tree(backed_up.data_dir).items()}
    backed_up.start("sanity")
    assert set(backed_up.keys()) == {"a", "b", "c"}
    (aside,) = backed_up.volume.glob("new.etcd.bad-*")
    assert {path.removeprefix(str(aside)): data for path, data in tree(aside).items()} == before


def test_an_invalid_volume_without_a_backup_is_refused_and_kept(backed_up: Pair, tmp_path: Path) -> None:
    without_db(backed_up.data_dir)
    shutil.rmtree(tmp_path / "store")
    before = tree(backed_up.volume)
    assert backed_up.initialize() == "Failed"
    assert backed_up.sidecar.ask("/initialization/status")[1] == b"New", "who asked has been told"
    assert tree(backed_up.volume) == before
    assert "there is no backup to restore" in backed_up.sidecar.log


def test_the_volume_of_another_namespace_is_refused(backed_up: Pair) -> None:
    (backed_up.volume / "safe_guard").write_text("shoot--dev--other")
    before = tree(backed_up.volume)
    assert backed_up.initialize() == "Failed"
    assert tree(backed_up.volume) == before
    assert "the volume belongs to namespace 'shoot--dev--other'" in backed_up.sidecar.log


def test_a_volume_in_use_is_left_alone(pair: Pair) -> None:
    pair.start()
    pair.put("a")
    assert pair.initialize() == "Failed"
    assert "the database is in use" in pair.sidecar.log
    assert set(pair.keys()) == {"a"}
    assert [path.name for path in pair.volume.iterdir() if "bad" in path.name] == []


def test_a_damaged_backup_is_not_restored(backed_up: Pair, make_pair: MakePair, tmp_path: Path) -> None:
    (full,) = (tmp_path / "store" / "v2").glob("Full-*")
    data = bytearray(full.read_bytes())
    data[len(data) // 2] ^= 1
    full.write_bytes(data)
    fresh = make_pair()
    for _ in range(2):  # the wrapper asks again for ever
        assert fresh.initialize() == "Failed"
    assert not list(fresh.volume.glob("new.etcd*"))
    assert full.name in fresh.sidecar.log
    assert (
        fresh.sidecar.metric('etcdbr_restoration_duration_seconds_count{restore="single_node",succeeded="false"}') == 2
    )


def test_a_sidecar_killed_in_the_middle_of_a_restore(backed_up: Pair, make_pair: MakePair) -> None:
    keys = {"a", "b", "c"}
    fresh = make_pair()
    fresh.arrange(armed="restore.publish=pause(600)")
    fresh.sidecar.start()
    fresh.sidecar.ask("/initialization/start")
    until((fresh.volume / "new.etcd.part" / "member" / "wal").exists, "the restore is nearly done")
    assert fresh.sidecar.ask("/initialization/status")[1] == b"Progress"
    fresh.sidecar.kill()
    fresh.arrange()
    fresh.start()
    assert set(fresh.keys()) == keys
    assert sorted(path.name for path in fresh.volume.glob("new.etcd*")) == ["new.etcd"]


def test_a_sidecar_told_to_stop_in_the_middle_of_a_restore(backed_up: Pair, make_pair: MakePair) -> None:
    fresh = make_pair()
    fresh.arrange(armed="restore.base=pause(3)")
    fresh.sidecar.start()
    fresh.sidecar.ask("/initialization/start")
    until((fresh.volume / "new.etcd.part").exists, "the restore")
    fresh.sidecar.stop()
    assert "stopped by SIGTERM" in fresh.sidecar.log
    assert not list(fresh.volume.glob("new.etcd*"))
