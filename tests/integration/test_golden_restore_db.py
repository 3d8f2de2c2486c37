"""The buckets of the peer, restored without an etcd, are what the source etcd was: in every version of etcd."""

import base64
import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backupagent.codecs import codec_for_suffix
from backupagent.etcd.boltfile.reader import BoltReader
from backupagent.etcd.boltfile.tree import check_file
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.etcd.overlap import Overlap
from backupagent.etcd.raftfiles import parse_initial_cluster, write_raft_files
from backupagent.etcd.restored_db import RestoredDb
from backupagent.model.event import decode_events
from backupagent.model.snapshot import Snapshot
from backupagent.model.trailer import TrailerCheck
from backupagent.testing.keyspace import StoredKey, read_everything
from backupagent.testing.servers import EtcdServer

GOLDEN = Path(__file__).parent.parent / "golden"
BUCKETS = ("gzip", "lzw-final", "none", "zlib-final")
ETCDS = ("etcd-3.4", "etcd-3.5", "etcd-3.6", "etcd-3.7")
COMPACTED = 25
"""Where every source was compacted, long after its first full."""


def content(path: Path) -> bytes:
    snapshot = Snapshot.parse(path.name)
    decoder = codec_for_suffix(snapshot.suffix, path.name).decoder(path.name)
    check = TrailerCheck(snapshot.kind, path.name)
    found = bytearray()
    for piece in decoder.feed(path.read_bytes()):
        for checked in check.split(piece):
            found += checked
    decoder.finish()
    check.finish()
    return bytes(found)


def objects(bucket: str) -> tuple[Path, list[Path]]:
    """The oldest full, and all deltas in order."""
    paths = sorted((GOLDEN / bucket / "v2").iterdir(), key=lambda path: Snapshot.parse(path.name).last)
    deltas = [path for path in paths if not Snapshot.parse(path.name).is_full]
    return next(path for path in paths if path not in deltas), deltas


def source(bucket: str, what: str) -> Any:
    return json.loads((GOLDEN / bucket / f"etcd-final-{what}.json").read_text())


def restore(bucket: str, data_dir: Path, peer_url: str) -> RestoredDb:
    full, deltas = objects(bucket)
    (data_dir / "member" / "snap").mkdir(parents=True)
    path = data_dir / "member" / "snap" / "db"
    path.write_bytes(content(full))
    db = RestoredDb.open(path, name=full.name)
    for delta in deltas:
        db.begin_delta(delta.name)
        for batch in decode_events([content(delta)], delta.name):
            db.append(batch)
        db.end_delta()
    cluster = parse_initial_cluster(f"default={peer_url}")
    db.finish(cluster, leases=dict.fromkeys(db.missing_leases(), 3600))
    write_raft_files(data_dir, cluster, "default")
    return db


def call(server: EtcdServer, method: str, **request: object) -> Any:
    posted = urllib.request.Request(f"{server.url}/v3/{method}", json.dumps(request).encode(), method="POST")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(posted, timeout=20) as answer:
        return json.load(answer)


def recorded_keys(bucket: str) -> list[StoredKey]:
    return [
        StoredKey(
            base64.b64decode(kv["key"]),
            base64.b64decode(kv.get("value", "")),
            kv["create_revision"],
            kv["mod_revision"],
            kv["version"],
            kv.get("lease", 0),
        )
        for kv in source(bucket, "keys")["kvs"]
    ]


@pytest.mark.parametrize("bucket", BUCKETS)
def test_offline_hash_at_the_sources_compact_revision_is_the_sources(bucket: str, tmp_path: Path) -> None:
    [recorded] = source(bucket, "hashkv")
    with restore(bucket, tmp_path / "data", "http://127.0.0.1:2380") as db:
        proof = db.prove(compact_revision=COMPACTED)

    assert recorded["HashKV"]["compact_revision"] == proof.compact_revision == COMPACTED
    assert proof.hash_kv == recorded["HashKV"]["hash"]
    assert proof.revision == recorded["HashKV"]["header"]["revision"]


@pytest.mark.parametrize("bucket", BUCKETS)
def test_every_page_of_the_restored_file_is_in_order(bucket: str, tmp_path: Path) -> None:
    with restore(bucket, tmp_path / "data", "http://127.0.0.1:2380") as db:
        size = db.size

    with BoltReader(tmp_path / "data/member/snap/db") as reader:
        assert 4 < check_file(reader) <= reader.high_water == size // reader.page_size


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_delta_that_comes_twice_agrees_with_itself(bucket: str, tmp_path: Path) -> None:
    full, deltas = objects(bucket)
    path = tmp_path / "db"
    path.write_bytes(content(full))
    with RestoredDb.open(path) as db:
        for delta in [each for each in deltas for _ in range(2)]:
            is_second, before = db.revision == Snapshot.parse(delta.name).last, db.events
            overlap = Overlap(db, delta.name)
            db.begin_delta(delta.name)
            for batch in decode_events([content(delta)], delta.name):
                overlap.compare(batch)
                db.append(batch)
            overlap.finish()
            db.end_delta()
            assert (overlap.compared > 0, db.events > before) == (is_second, not is_second)


@pytest.fixture
def start(server_binary: Callable[[str], Path]) -> Iterator[Callable[[str, str, Path], EtcdServer]]:
    started: list[EtcdServer] = []

    def start(version: str, bucket: str, data_dir: Path) -> EtcdServer:
        server = EtcdServer(server_binary(version), data_dir)
        started.append(server)
        restore(bucket, data_dir, server.peer_url).close()
        server.start()
        return server

    yield start
    for server in started:
        server.close()


@pytest.mark.parametrize("version", ETCDS)
@pytest.mark.parametrize("bucket", BUCKETS)
def test_etcd_started_from_it_equals_the_source(
    version: str, bucket: str, tmp_path: Path, start: Callable[[str, str, Path], EtcdServer]
) -> None:
    server = start(version, bucket, tmp_path / "data")
    [recorded] = source(bucket, "hashkv")

    with EtcdClient.open(EtcdAccess(endpoints=(server.endpoint,))) as client:
        assert read_everything(client) == recorded_keys(bucket)
        assert client.revision() == recorded["HashKV"]["header"]["revision"]
        client.compact(COMPACTED)
        hashed = client.hash_kv()
    assert (hashed.hash, hashed.compact_revision) == (recorded["HashKV"]["hash"], COMPACTED)


@pytest.mark.parametrize("version", ETCDS)
def test_leases_of_the_source_hold_the_same_keys(
    version: str, tmp_path: Path, start: Callable[[str, str, Path], EtcdServer]
) -> None:
    server = start(version, "gzip", tmp_path / "data")

    lines = (GOLDEN / "gzip" / "etcd-final-leases.txt").read_text().splitlines()
    granted = [match for line in lines if (match := re.match(r"lease (\w+) .* attached keys\(\[(.*)\]\)", line))]
    assert len(granted) == 2
    for match in granted:
        answer = call(server, "lease/timetolive", ID=int(match[1], 16), keys=True)
        assert [base64.b64decode(key).decode() for key in answer["keys"]] == [match[2]]
        assert int(answer["TTL"]) > 3000
