"""The client against real etcds: requests, snapshots, hashes, leases, login, TLS, failover."""

import contextlib
import hashlib
import json
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backupagent.cancel import Cancel
from backupagent.errors import Cancelled, EtcdError, EtcdUnavailable, RevisionCompacted
from backupagent.etcd.client import MAX_LEASE_REQUESTS, EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.etcd.watch import events
from backupagent.model.event import DELETE, PUT, Event
from backupagent.testing.servers import EtcdServer, binary_version, free_ports

ETCDS = ("etcd-3.4", "etcd-3.5", "etcd-3.6", "etcd-3.7", "etcd")
Find = Callable[[str], Path]


@pytest.fixture(scope="module", params=ETCDS)
def etcd(request: pytest.FixtureRequest, server_binary: Find) -> Iterator[EtcdServer]:
    with EtcdServer(server_binary(request.param)) as server:
        yield server


@pytest.fixture
def client(etcd: EtcdServer) -> Iterator[EtcdClient]:
    with EtcdClient.open(EtcdAccess((etcd.url,))) as opened:
        yield opened


@pytest.fixture
def own_etcd(server_binary: Find) -> Iterator[EtcdServer]:
    """An etcd that a test may break."""
    with EtcdServer(server_binary("etcd")) as server:
        yield server


def since(client: EtcdClient, revision: int) -> list[Event]:
    batches = events(client, revision + 1, client.revision(), cancel=Cancel())
    return [event for batch in batches for event in batch]


def brief(event: Event) -> tuple[int, bytes, bytes, int]:
    kv = event.etcdEvent.kv
    return event.etcdEvent.type, kv.key, kv.value, kv.lease


def test_etcd3_works_on_the_fast_protobuf(client: EtcdClient) -> None:
    from google.protobuf.internal import api_implementation

    assert api_implementation.Type() == "upb"
    etcd3 = client.etcd3
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    watch_id = etcd3.add_watch_prefix_callback("fast/", seen.put)
    etcd3.put("fast/a", "1")
    assert etcd3.get("fast/a")[0] == b"1"
    response = seen.get(timeout=10)
    assert [(event.key, event.value) for event in response.events] == [(b"fast/a", b"1")]
    etcd3.cancel_watch(watch_id)
    operations = etcd3.transactions
    done, _ = etcd3.transaction(
        compare=[operations.value("fast/a") == "1"], success=[operations.put("fast/b", "2")], failure=[]
    )
    assert done
    lease = etcd3.lease(60)
    etcd3.put("fast/c", "3", lease=lease)
    assert lease.remaining_ttl > 0
    lease.revoke()
    assert [value for value, _ in etcd3.get_prefix("fast/")] == [b"1", b"2"]
    with etcd3.lock("fast/lock", ttl=10) as lock:
        assert lock.is_acquired()


def test_status_and_revision(etcd: EtcdServer, client: EtcdClient) -> None:
    before = client.revision()
    client.etcd3.put("status", "x")
    assert client.revision() == before + 1
    status = client.status()
    assert status.revision == before + 1
    assert tuple(map(int, status.version.split("."))) == binary_version(etcd.binary)[:3]
    assert status.leader == status.member_id != 0
    assert status.cluster_id != 0
    assert status.raft_term >= 2
    assert 0 < status.db_size_in_use <= status.db_size
    assert not status.is_learner
    assert status.errors == ()
    assert client.endpoint == etcd.endpoint


def test_events_of_transactions_range_deletes_and_leases(client: EtcdClient) -> None:
    before, etcd3, operations = client.revision(), client.etcd3, client.etcd3.transactions
    low, high = -(2**63) + 600, 2**53 + 700  # ids that no other test of this etcd grants
    etcd3.lease(600, low)
    etcd3.lease(700, high)
    for key in ("t/1", "t/2", "t/3"):
        etcd3.put(key, b"", lease=high)
    etcd3.delete_prefix("t/")
    etcd3.put("t/4", bytes(range(256)), lease=low)
    # Not in the order of keys: sub-revisions are the order of operations.
    etcd3.transaction([], [operations.put("t/9", "9"), operations.delete("t/4"), operations.put("t/5", "5", low)], [])
    etcd3.revoke_lease(low)
    etcd3.revoke_lease(high)
    got = since(client, before)
    assert [brief(event) for event in got] == [
        (PUT, b"t/1", b"", high),
        (PUT, b"t/2", b"", high),
        (PUT, b"t/3", b"", high),
        (DELETE, b"t/1", b"", 0),
        (DELETE, b"t/2", b"", 0),
        (DELETE, b"t/3", b"", 0),
        (PUT, b"t/4", bytes(range(256)), low),
        (PUT, b"t/9", b"9", 0),
        (DELETE, b"t/4", b"", 0),
        (PUT, b"t/5", b"5", low),
        (DELETE, b"t/5", b"", 0),
    ]
    offsets = [event.etcdEvent.kv.mod_revision - before for event in got]
    assert offsets == [1, 2, 3, 4, 4, 4, 5, 6, 6, 6, 7]
    fourth = got[6].etcdEvent.kv
    assert (fourth.create_revision, fourth.version) == (before + 5, 1)
    assert all(event.time.endswith("Z") for event in got)


def test_leases(client: EtcdClient) -> None:
    ids = [-(2**63) + 1, -5, 7, 2**53 + 3, 2**63 - 1]
    for position, lease_id in enumerate(ids):
        client.etcd3.lease(1000 + position, lease_id)
    many = [10_000 + number for number in range(2 * MAX_LEASE_REQUESTS)]
    for lease_id in many:
        client.etcd3.lease(2000, lease_id)
    assert set(ids + many) <= set(client.leases())
    client.etcd3.revoke_lease(7)
    unknown = 424_242
    assert client.lease_ttls([*ids, unknown, *many]) == {
        **{lease_id: 1000 + position for position, lease_id in enumerate(ids) if lease_id != 7},
        **dict.fromkeys(many, 2000),
    }
    assert client.lease_ttls([]) == {}
    for lease_id in [*ids, *many]:
        if lease_id != 7:
            client.etcd3.revoke_lease(lease_id)


def test_snapshot_ends_with_its_sha256_while_a_writer_writes(client: EtcdClient) -> None:
    for number in range(40):
        client.etcd3.put(f"snapshot/{number}", bytes(50_000))
    stop, written = threading.Event(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            client.etcd3.put("snapshot/writer", bytes(10_000))
            written.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(30)
        pieces = list(client.snapshot_stream())
    finally:
        stop.set()
        writer.join()
    content = b"".join(pieces)
    assert all(pieces)
    assert len(content) > 40 * 50_000
    assert hashlib.sha256(content[:-32]).digest() == content[-32:]
    assert len(content) % 512 == 32


def guards() -> int:
    return sum(thread.name == "etcd-stream-guard" for thread in threading.enumerate())


def test_snapshot_can_be_left_early_and_stopped(client: EtcdClient) -> None:
    with contextlib.closing(client.snapshot_stream()) as stream:
        assert next(stream)
        assert guards() == 1
    assert guards() == 0
    cancel = Cancel()
    stream = client.snapshot_stream(cancel)
    assert next(stream)
    cancel.set("SIGTERM")
    with pytest.raises(Cancelled):
        list(stream)
    assert guards() == 0


def etcdctl_hash(etcdctl: Path, etcd: EtcdServer, revision: int) -> dict[str, Any]:
    command = [etcdctl, f"--endpoints={etcd.endpoint}", "endpoint", "hashkv", f"--rev={revision}", "--write-out=json"]
    done = subprocess.run(command, env={"ETCDCTL_API": "3"}, capture_output=True, timeout=30, check=True)
    return json.loads(done.stdout)[0]["HashKV"]


def test_hash_kv(etcd: EtcdServer, client: EtcdClient, server_binary: Find) -> None:
    for number in range(20):
        client.etcd3.put(f"hash/{number % 5}", str(number))
    revision = client.revision()
    newest = client.hash_kv()
    assert newest.revision == revision
    assert newest == client.hash_kv(revision)
    client.etcd3.put("hash/later", "x")
    assert client.hash_kv(revision) == newest
    older = client.hash_kv(revision - 3)
    assert older.revision == revision - 3
    assert older.hash != newest.hash
    told = etcdctl_hash(server_binary("etcdctl"), etcd, revision)
    assert (told["hash"], told["compact_revision"]) == (newest.hash, newest.compact_revision)
    with pytest.raises(EtcdError, match="future revision"):
        client.hash_kv(revision + 100)


def test_compacted_history(server_binary: Find, etcd: EtcdServer) -> None:
    with EtcdServer(etcd.binary) as fresh, EtcdClient.open(EtcdAccess((fresh.url,))) as client:
        for number in range(30):
            client.etcd3.put(f"k{number % 3}", str(number))
        assert client.hash_kv().compact_revision == -1
        client.compact(20)
        last = client.revision()
        assert client.hash_kv().compact_revision == 20
        assert len(since(client, 20)) == last - 20
        # At the compact revision itself deletions may be gone: it counts as compacted, too.
        for first in (2, 19, 20):
            with pytest.raises(RevisionCompacted, match=f"^etcd {fresh.endpoint}: .*compacted"):
                list(events(client, first, last, cancel=Cancel()))
        with pytest.raises(RevisionCompacted):
            client.hash_kv(10)
        with pytest.raises(RevisionCompacted):
            client.compact(20)


def test_errors_of_etcd3_are_translated_on_request(own_etcd: EtcdServer) -> None:
    with EtcdClient.open(EtcdAccess((own_etcd.url,), request_timeout_s=5)) as client:
        with client.errors(), pytest.raises(EtcdError, match="key is not provided"), client.errors():
            client.etcd3.put("", "x")
        own_etcd.kill()
        with pytest.raises(EtcdUnavailable, match=f"^etcd {own_etcd.endpoint}: "), client.errors():
            client.etcd3.put("a", "x")
        with pytest.raises(EtcdUnavailable):
            client.revision()
        own_etcd.start()
        pause = threading.Event()
        for _ in range(200):  # the channel connects again by itself, after its back-off
            with contextlib.suppress(EtcdUnavailable):
                assert client.revision() == 1
                break
            pause.wait(0.05)
        else:
            pytest.fail("the channel did not connect again")


def test_first_endpoint_that_answers_is_used(own_etcd: EtcdServer) -> None:
    dead = [f"http://127.0.0.1:{port}" for port in free_ports(2)]
    with EtcdClient.open(EtcdAccess((dead[0], own_etcd.endpoint, dead[1]))) as client:
        assert client.endpoint == own_etcd.endpoint
    with pytest.raises(
        EtcdUnavailable, match=r"^etcd: none of 2 endpoints answers: 127\.0\.0\.1:.*; 127\.0\.0\.1:"
    ) as caught:
        EtcdClient.open(EtcdAccess(tuple(dead)))
    assert "check that etcd runs" in caught.value.hint
    with pytest.raises(EtcdUnavailable, match=f"^etcd {dead[0].removeprefix('http://')}: "):
        EtcdClient.open(EtcdAccess((dead[0],)))


def test_member_without_a_leader_is_the_last_choice_but_still_serves_a_snapshot(own_etcd: EtcdServer) -> None:
    peers = {"a": ("127.0.0.2", *free_ports(1, "127.0.0.2")), "b": ("127.0.0.3", *free_ports(1, "127.0.0.3"))}
    cluster = ",".join(f"{name}=http://{host}:{port}" for name, (host, port) in peers.items())
    left, lost = (
        EtcdServer(own_etcd.binary, name=name, host=host, initial_cluster=cluster, peer_port=port)
        for name, (host, port) in peers.items()
    )
    with contextlib.closing(left), contextlib.closing(lost):
        for member in (left, lost):
            member.start(wait=False)
        for member in (left, lost):
            member.wait_ready()
        lost.kill()
        with EtcdClient.open(EtcdAccess((left.url,), request_timeout_s=1)) as client:
            quorum_lost = threading.Event()
            while client.status().leader:
                quorum_lost.wait(0.05)
            with pytest.raises(EtcdUnavailable):
                client.revision()
        with EtcdClient.open(EtcdAccess((left.url,))) as client:
            assert "etcdserver: no leader" in client.status().errors
            content = b"".join(client.snapshot_stream())
            assert hashlib.sha256(content[:-32]).digest() == content[-32:]
        with EtcdClient.open(EtcdAccess((left.url, own_etcd.url))) as client:
            assert client.endpoint == own_etcd.endpoint
