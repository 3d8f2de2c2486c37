"""A real sidecar before and beside a real etcd: what becomes of volumes, what gets into the store, what it answers."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sidecar_pair import MEMBER, NAMESPACE, Pair, until

from backupagent.kube.manifests import lease_patch
from backupagent.kube.resources import LEASES, NAMESPACES
from backupagent.model.restored import ANNOTATION, decode_restored
from backupagent.testing.kube_servers import KubeApiServer
from backupagent.testing.servers import MinioServer

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

ETCDS = ("etcd-3.5", "etcd-3.6")
ONE_FULL, FULL_AND_DELTA = 1, 2
Find = Callable[[str], Path]
MakePair = Callable[..., Pair]


@pytest.fixture
def make_pair(server_binary: Find, tmp_path: Path) -> Iterator[MakePair]:
    """Make pairs that are stopped at the end; all have the same store unless told otherwise."""
    pairs: list[Pair] = []

    def make(store: str | None = None, etcd: str = "etcd-3.5") -> Pair:
        folder = tmp_path / f"pair-{len(pairs)}"
        folder.mkdir()
        pair = Pair(folder, server_binary(etcd), (tmp_path / "store").as_uri() if store is None else store)
        pairs.append(pair)
        return pair

    yield make
    for pair in pairs:
        pair.close()


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    return make_pair()


@pytest.fixture
def backed_up(make_pair: MakePair) -> Pair:
    """A pair that has written a full and a delta, and was stopped in order."""
    made = make_pair()
    made.start()
    made.put("a", "b", "c")
    made.sidecar.json("/snapshot/delta")
    made.stop()
    return made


@pytest.fixture(scope="module")
def minio(server_binary: Find) -> Iterator[MinioServer]:
    with MinioServer(binary=server_binary("minio")) as server:
        yield server


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- initialization


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


# ---- routes


def test_snapshots_on_request(pair: Pair) -> None:
    pair.start()
    assert pair.sidecar.json("/snapshot/delta") is None
    pair.put("a")
    delta = pair.sidecar.json("/snapshot/delta", "POST")
    created = delta.pop("createdOn")
    assert delta == {
        "immutabilityExpriyTime": "0001-01-01T00:00:00Z", "versionID": None, "kind": "Incr", "snapDir": "",
        "snapName": pair.names()[-1], "prefix": "", "compressionSuffix": ".gz", "startRevision": 2, "lastRevision": 2,
        "isChunk": False, "isFinal": False,
    }  # fmt: skip
    assert created.endswith("Z")
    latest = pair.sidecar.json("/snapshot/latest")
    assert [
        latest["fullSnapshot"]["snapName"],
        *(each["snapName"] for each in latest["deltaSnapshots"]),
    ] == pair.names()
    assert latest["deltaSnapshots"][0] == delta | {
        "prefix": "v2",
        "createdOn": latest["deltaSnapshots"][0]["createdOn"],
    }
    full = pair.sidecar.json("/snapshot/full")
    assert (full["kind"], full["startRevision"], full["lastRevision"], full["isFinal"]) == ("Full", 0, 2, False)
    assert pair.sidecar.json("/snapshot/latest")["deltaSnapshots"] is None
    assert pair.sidecar.ask("/snapshot/full?final=perhaps")[0] == 400
    assert len(pair.chains()) == 2


def test_a_final_snapshot_is_the_same_however_often_it_is_asked_for(pair: Pair) -> None:
    pair.start()
    pair.put("a")
    first = pair.sidecar.json("/snapshot/full?final=true")
    assert first["isFinal"]
    assert first["snapName"].endswith(".gz.final")
    assert pair.sidecar.json("/snapshot/full?final=true", "POST")["snapName"] == first["snapName"]
    pair.sidecar.restart()
    until(pair.healthy, "backups")
    assert pair.sidecar.json("/snapshot/full?final=true")["snapName"] == first["snapName"]
    assert pair.names() == [first["snapName"]]
    pair.put("b")
    again = pair.sidecar.json("/snapshot/full?final=true")
    assert (again["lastRevision"], again["isFinal"]) == (3, True)
    assert pair.names() == [again["snapName"]]


def test_a_full_follows_a_final_one_once_something_was_written(pair: Pair) -> None:
    pair.start()
    final = pair.sidecar.json("/snapshot/full?final=true")
    pair.put("a")
    pair.sidecar.restart()
    until(lambda: pair.chains()[0].full.name != final["snapName"], "a new full")
    assert pair.chains()[0].full.last_revision == 2


def test_header_and_body_come_together(pair: Pair) -> None:
    pair.start()
    for _ in range(100):
        status, config = pair.sidecar.ask_at_once("/config")
        assert status == 200
        assert len(config) > 300
        assert pair.sidecar.ask_at_once("/initialization/status") == (200, b"New")


def test_nothing_is_taken_while_there_is_no_etcd(pair: Pair) -> None:
    pair.sidecar.start()
    assert pair.sidecar.ask("/healthz") == (503, b'{"health": false}')
    for route in ("/snapshot/full", "/snapshot/delta"):
        assert pair.sidecar.ask(route)[0] == 500
    assert pair.sidecar.json("/snapshot/latest") == {"fullSnapshot": None, "deltaSnapshots": None}


# ---- backups


def test_deltas_come_by_themselves(pair: Pair) -> None:
    pair.arrange("--delta-period=1s")
    pair.start()
    pair.put("a")
    until(lambda: len(pair.names()) == 2, "a delta")
    pair.put("b")
    until(lambda: len(pair.names()) == 3, "another one")
    assert [delta.start_revision for delta in pair.chains()[0].deltas] == [2, 3]


def test_the_last_writes_are_saved_when_the_sidecar_stops(pair: Pair) -> None:
    pair.start()
    pair.put("a", "b")
    pair.sidecar.stop()
    assert pair.chains()[0].last_revision == 3
    assert "Traceback" not in pair.sidecar.log


def test_a_sidecar_whose_etcd_is_gone_stops_soon(pair: Pair) -> None:
    pair.start()
    pair.put("a")
    pair.etcd.kill()
    pair.sidecar.stop()
    assert "no last delta" in pair.sidecar.log
    assert pair.chains()[0].last_revision == 1


def test_a_sidecar_that_starts_again_goes_on_with_the_chain(pair: Pair) -> None:
    pair.start()
    pair.put("a")
    pair.sidecar.kill()
    pair.put("b")
    pair.sidecar.start()
    until(lambda: len(pair.names()) == FULL_AND_DELTA, "the chain goes on")
    assert pair.chains()[0].last_revision == 3
    assert len(pair.chains()) == 1


def test_an_etcd_that_comes_back_is_backed_up_again(pair: Pair) -> None:
    pair.arrange("--delta-period=1s")
    pair.start()
    pair.etcd.kill()
    until(lambda: not pair.healthy(), "it is noticed")
    pair.etcd.start()
    pair.put("a")
    until(lambda: pair.chains()[0].last_revision == 2, "a delta")
    assert pair.sidecar.json("/healthz") == {"health": True}


def test_an_etcd_behind_its_backups_writes_nothing_among_them(
    backed_up: Pair, make_pair: MakePair, tmp_path: Path
) -> None:
    other = make_pair((tmp_path / "elsewhere").as_uri())
    other.start()
    other.stop()  # a valid volume at revision 1, as an old one that came back
    other.store = backed_up.store
    other.arrange()
    before = tree(tmp_path / "store")
    assert other.initialize() == "Successful"
    config = other.sidecar.ask("/config")[1]
    other.etcd.config.write_bytes(config)
    other.etcd.start()
    until(lambda: "is at revision 1" in other.sidecar.log, "it is told")
    assert other.sidecar.ask("/healthz")[0] == 503
    assert other.sidecar.ask("/snapshot/full?final=true")[0] == 500
    assert tree(tmp_path / "store") == before


# ---- Leases


def test_leases_are_written_even_when_kubernetes_comes_later(
    backed_up: Pair, make_pair: MakePair, server_binary: Find, tmp_path: Path
) -> None:
    for name in ("kube-apiserver", "etcd"):
        server_binary(name)
    with KubeApiServer() as api, api.client() as kube:
        kube.create(NAMESPACES, NAMESPACES.stub(NAMESPACE))
        for name in (MEMBER, "full", "delta"):
            kube.create(LEASES, LEASES.stub(name, NAMESPACE))
        config = api.kubeconfig(tmp_path)
        api.stop()
        fresh = make_pair()
        fresh.arrange(
            f"--kubeconfig={config}", "--member-lease", "--snapshot-leases", "--full-lease=full", "--delta-lease=delta",
            "--heartbeat=1s",
        )  # fmt: skip
        fresh.start()
        assert set(fresh.keys()) == {"a", "b", "c"}, "nobody waits for Kubernetes"
        fresh.sidecar.kill()  # what was not told yet is told by the next one
        fresh.sidecar.start()
        api.start()

        def spec(name: str) -> dict[str, str]:
            return dict(kube.get(LEASES, name, NAMESPACE)["spec"])

        def annotations() -> dict[str, str]:
            return dict(kube.get(LEASES, MEMBER, NAMESPACE)["metadata"].get("annotations", {}))

        until(lambda: ANNOTATION in annotations(), "the restore is told")
        restored = decode_restored(annotations()[ANNOTATION], MEMBER)
        assert (restored.revision, restored.full, restored.deltas) == (4, backed_up.names()[0], 1)
        assert restored.matches_manifest is not None
        until(lambda: spec(MEMBER).get("holderIdentity"), "the member's Lease")
        with fresh.client() as client:
            status = client.status()
        assert spec(MEMBER)["holderIdentity"] == f"{status.member_id:x}:{status.cluster_id:x}:Leader"
        assert annotations()["member.etcd.gardener.cloud/tls-enabled"] == "false"
        assert not list(fresh.volume.glob("*.restored"))

        kube.patch(LEASES, "full", NAMESPACE, lease_patch(holder="2"))
        fresh.put("d")
        fresh.sidecar.json("/snapshot/delta")
        until(lambda: spec("delta").get("holderIdentity") == "5", "the deltas' Lease")
        fresh.sidecar.json("/snapshot/full")
        until(lambda: spec("full").get("holderIdentity") == "5", "the fulls' Lease")
