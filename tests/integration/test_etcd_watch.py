"""Catching up with real etcds: long, fragmented, and interrupted histories are complete."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from backupagent.cancel import Cancel
from backupagent.errors import EtcdUnavailable
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.etcd.stream import WatchStream
from backupagent.etcd.watch import CatchUp, events
from backupagent.model.event import DELETE, PUT, Event
from backupagent.testing.servers import EtcdServer, binary_version
from backupagent.units import MiB

ETCDS = ("etcd-3.4", "etcd-3.5", "etcd-3.6", "etcd-3.7")
Find = Callable[[str], Path]
Written = list[tuple[int, int, bytes, bytes]]
"""Revision, type, key, value of each event."""


@pytest.fixture(params=ETCDS)
def etcd(request: pytest.FixtureRequest, server_binary: Find) -> Iterator[EtcdServer]:
    with EtcdServer(server_binary(request.param)) as server:
        yield server


class Recorded:
    """A client that remembers the streams it opened and the fragments they sent."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self.endpoint = client.endpoint
        self.streams: list[RecordedStream] = []

    def open_watch(self, cancel: Cancel) -> "RecordedStream":
        self.streams.append(RecordedStream(self._client.open_watch(cancel)))
        return self.streams[-1]


class RecordedStream:
    def __init__(self, stream: WatchStream) -> None:
        self._stream = stream
        self.create = stream.create
        self.cancel = stream.cancel
        self.watchers = 0
        self.fragments = 0
        self.broken = False
        self.fragmented_revisions: set[int] = set()

    def __iter__(self) -> Iterator[Any]:
        try:
            for response in self._stream:
                self.watchers += response.created
                if response.fragment:
                    self.fragments += 1
                    self.fragmented_revisions.add(response.events[-1].kv.mod_revision)
                yield response
        except EtcdUnavailable:
            self.broken = True
            raise

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.__exit__(kind, error, trace)


def fill(client: EtcdClient, revisions: int, value_size: int = 60) -> Written:
    """Write so many revisions of one put each, fast."""
    messages, stub = client.etcd3.messages, client.etcd3.kvstub
    sent: list[tuple[Any, bytes, bytes]] = []
    for number in range(revisions):
        key, value = b"/registry/pods/%d" % (number % 500), number.to_bytes(8) * (value_size // 8)
        sent.append((stub.Put.future(messages.PutRequest(key=key, value=value)), key, value))
    # Requests sent ahead are served in any order: the answer tells the revision.
    return sorted((answer.result().header.revision, PUT, key, value) for answer, key, value in sent)


def transact(client: EtcdClient, revisions: int, seed: int) -> Written:
    """Write so many revisions of transactions with puts and deletions."""
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    rng, etcd3 = random.Random(seed), client.etcd3
    alive: set[bytes] = set()
    written: Written = []
    for _ in range(revisions):
        operations, changes = [], []
        for number in rng.sample(range(50), 4):
            key, value = b"/t/%d" % number, rng.randbytes(rng.randrange(100))
            if key in alive and rng.random() < 0.3:
                alive.discard(key)
                operations.append({"request_delete_range": {"key": key}})
                changes.append((DELETE, key, b""))
            else:
                alive.add(key)
                operations.append({"request_put": {"key": key, "value": value}})
                changes.append((PUT, key, value))
        answer = etcd3.kvstub.Txn(etcd3.messages.TxnRequest(success=operations))
        written += [(answer.header.revision, *change) for change in changes]
    return written


def read(batches: Iterator[list[Event]]) -> Written:
    return [
        (event.etcdEvent.kv.mod_revision, event.etcdEvent.type, event.etcdEvent.kv.key, event.etcdEvent.kv.value)
        for batch in batches
        for event in batch
    ]


def test_long_history_equals_what_was_written(etcd: EtcdServer) -> None:
    with EtcdClient.open(EtcdAccess((etcd.url,))) as client:
        written = fill(client, 19_500) + transact(client, 500, seed=5)
        source = Recorded(client)
        assert read(events(source, 2, client.revision(), cancel=Cancel())) == written
        assert [stream.watchers for stream in source.streams] == [4, 16, 1]
        # The same by one watcher that goes through many batches.
        source = Recorded(client)
        one = CatchUp(slice_revisions=10**9)
        assert read(events(source, 15_001, client.revision(), cancel=Cancel(), limits=one)) == written[14_999:]
        assert [stream.watchers for stream in source.streams] == [1]


def test_history_of_big_values_is_fragmented_and_complete(etcd: EtcdServer) -> None:
    with EtcdClient.open(EtcdAccess((etcd.url,))) as client:
        written = fill(client, 12, value_size=1 * MiB)
        source = Recorded(client)
        assert read(events(source, 2, client.revision(), cancel=Cancel())) == written
        assert source.streams[0].fragments >= 5


def test_one_big_revision_is_fragmented_and_complete(etcd: EtcdServer) -> None:
    """A transaction of 20 MB, read from a server that sends at most 2 MiB at once."""
    generous = EtcdServer(etcd.binary, extra_args=[f"--max-request-bytes={64 * MiB}"])
    with generous, EtcdClient.open(EtcdAccess((generous.url,))) as client:
        messages = client.etcd3.messages
        # 3.4 cannot start again from a WAL that has entries above 10 MB.
        count = 20 if binary_version(etcd.binary) >= (3, 5) else 8
        values = [bytes([number]) * MiB for number in range(count)]
        puts = [{"request_put": {"key": b"big/%02d" % number, "value": value}} for number, value in enumerate(values)]
        client.etcd3.put("before", "x")
        revision = client.etcd3.kvstub.Txn(messages.TxnRequest(success=puts)).header.revision
        client.etcd3.put("behind", "x")
        generous.stop()
        with (
            EtcdServer(etcd.binary, data_dir=generous.data_dir) as usual,
            EtcdClient.open(EtcdAccess((usual.url,))) as again,
        ):
            source = Recorded(again)
            batches = list(events(source, 2, revision + 1, cancel=Cancel()))
    assert revision in source.streams[0].fragmented_revisions
    big = [batch for batch in batches if any(event.etcdEvent.kv.mod_revision == revision for event in batch)]
    assert len(big) == 1, "a revision is never split over two lists"
    assert read(iter(batches)) == [
        (revision - 1, PUT, b"before", b"x"),
        *((revision, PUT, b"big/%02d" % number, value) for number, value in enumerate(values)),
        (revision + 1, PUT, b"behind", b"x"),
    ]


@pytest.mark.parametrize(
    ("limits", "stream"),
    [(CatchUp(slice_revisions=10**9), 1), (CatchUp(slice_revisions=299), 2)],
    ids=["one", "sliced"],
)
def test_etcd_killed_in_the_middle(etcd: EtcdServer, limits: CatchUp, stream: int) -> None:
    with EtcdClient.open(EtcdAccess((etcd.url,))) as client:
        # Far more than what gRPC lets the server send ahead: nobody may have it all before the server dies.
        written = fill(client, 5_000, value_size=16_384)
        source = Recorded(client)
        reading = events(source, 2, client.revision(), cancel=Cancel(), limits=limits)
        got: Written = []
        while len(source.streams) < stream or not got:
            got += read(iter([next(reading)]))
        etcd.kill()
        etcd.start()
        got += read(reading)
    assert got == written
    assert source.streams[stream - 1].broken
    assert len(source.streams) > stream
