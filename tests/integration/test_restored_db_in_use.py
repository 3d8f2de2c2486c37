"""A restored file of several thousand pages lives on in a real etcd: it writes, deletes, compacts and defragments."""

import random
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from backupagent.etcd.boltfile.reader import BoltReader
from backupagent.etcd.boltfile.tree import check_file
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.etcd.mvcc.hashkv import OfflineHash, hash_kv
from backupagent.etcd.raftfiles import parse_initial_cluster, write_raft_files
from backupagent.etcd.restored_db import RestoredDb
from backupagent.model.event import DELETE, Change, Event, KeyValue
from backupagent.testing.keyspace import Delete, Put, StoredKey, commit, read_everything
from backupagent.testing.servers import EtcdServer

SEED = 4
TTL_S = 3600
BEHIND = 500
PEER_URL = "http://127.0.0.1:2380"
"""Nobody listens there: a single member talks to no other."""


class Source:
    """An etcd's keyspace as events, without an etcd."""

    def __init__(self, revision: int, keys: dict[bytes, StoredKey]) -> None:
        self.revision = revision
        self.keys = keys
        self._rng = random.Random(SEED)

    def events(self, revisions: int) -> list[Event]:
        found: list[Event] = []
        for _ in range(revisions):
            self.revision += 1
            for key in {b"/registry/%05d" % self._rng.randrange(3000) for _ in range(self._rng.choice((1, 1, 1, 3)))}:
                if key in self.keys and self._rng.random() < 0.2:
                    del self.keys[key]
                    found.append(Event(Change(type=DELETE, kv=KeyValue(key=key, mod_revision=self.revision))))
                    continue
                old = self.keys.get(key)
                create, version = (old.create_revision, old.version) if old else (self.revision, 0)
                value = self._rng.randbytes(self._rng.choice((0, 100, 1000, 1000, 9000)))
                lease = self._rng.choice((0, 0, 0, 77, 2**40))
                self.keys[key] = StoredKey(key, value, create, self.revision, version + 1, lease)
                found.append(Event(Change(kv=KeyValue(key, create, self.revision, version + 1, value, lease))))
        return found


def connect(server: EtcdServer) -> EtcdClient:
    return EtcdClient.open(EtcdAccess(endpoints=(server.endpoint,)))


def defragment(server: EtcdServer) -> None:
    request = urllib.request.Request(f"{server.url}/v3/maintenance/defragment", b"{}", method="POST")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        assert answer.status == 200


def offline_hash(server: EtcdServer) -> tuple[int, int, int]:
    with BoltReader(server.data_dir / "member" / "snap" / "db") as reader:
        check_file(reader)
        found = hash_kv(reader)
    return found.hash_kv, found.revision, found.compact_revision


def live_hash(client: EtcdClient) -> tuple[int, int, int]:
    found = client.hash_kv()
    return found.hash, found.revision, found.compact_revision


def take_base(etcd: Path, *, compacted: bool) -> tuple[bytes, Source]:
    """The database of a real etcd, and what is in it."""
    with EtcdServer(etcd) as server:
        with connect(server) as client:
            for start in range(0, 1200, 100):
                commit(client, [Put(b"/registry/%05d" % (start + i), bytes(700)) for i in range(100)])
            if compacted:
                commit(client, [Delete(b"/registry/00100", b"/registry/00300")])
                client.compact(commit(client, [Put(b"/registry/00100", b"again")]) - 1)
            source = Source(client.revision(), {each.key: each for each in read_everything(client)})
        server.stop()
        return (server.data_dir / "member" / "snap" / "db").read_bytes(), source


def restore(data_dir: Path, base: bytes, source: Source) -> list[OfflineHash]:
    """Restore base and new events; HashKV at the end, before it, and as if compacted before it."""
    path = data_dir / "member" / "snap" / "db"
    path.parent.mkdir(parents=True)
    path.write_bytes(base)
    cluster = parse_initial_cluster(f"default={PEER_URL}")
    write_raft_files(data_dir, cluster, "default")
    with RestoredDb.open(path) as db:
        for delta in range(5):
            db.begin_delta(f"Incr-{delta}")
            db.append(source.events(600))
            db.end_delta()
        db.finish(cluster, leases=dict.fromkeys(db.missing_leases(), TTL_S))
        before = source.revision - BEHIND
        return [db.prove(), db.prove(revision=before), db.prove(compact_revision=before)]


@pytest.mark.parametrize("version", ["etcd-3.4", "etcd-3.5", "etcd-3.6", "etcd-3.7"])
@pytest.mark.parametrize("compacted", [False, True], ids=["whole", "compacted"])
def test_it_lives_on(
    server_binary: Callable[[str], Path],
    tmp_path: Path,
    version: str,
    compacted: bool,
) -> None:
    base, source = take_base(server_binary(version), compacted=compacted)
    now, before, as_if_compacted = restore(tmp_path, base, source)

    with EtcdServer(server_binary(version), tmp_path) as server, connect(server) as client:
        assert live_hash(client) == (now.hash_kv, source.revision, now.compact_revision)
        assert client.hash_kv(before.revision).hash == before.hash_kv
        assert {each.key: each for each in read_everything(client)} == source.keys
        assert client.lease_ttls([77, 2**40]) == {77: TTL_S, 2**40: TTL_S}
        client.compact(as_if_compacted.compact_revision)
        assert client.hash_kv().hash == as_if_compacted.hash_kv

        for start in range(0, 3000, 250):
            commit(client, [Delete(b"/registry/%05d" % start, b"/registry/%05d" % (start + 200))])
        client.compact(commit(client, [Put(b"/registry/00001", b"x" * 5000)]))
        defragment(server)
        commit(client, [Put(b"/registry/00002", b"after")])
        hashed = live_hash(client)
        server.restart()
        assert live_hash(client) == hashed
        server.stop()
        assert offline_hash(server) == hashed
