"""A writer that fills an etcd as a Kubernetes API server does, fast, and goes on while snapshots are taken."""

import json
import random
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.rpc import rpc_pb2
from backupagent.testing.keyspace import Delete, Operation, Put, range_end, transaction
from backupagent.units import KiB, MiB

KINDS = ("pods", "secrets", "configmaps", "deployments", "leases", "events", "custom.example.org/items")
NAMESPACES = 40
SIZES = ((0.9795, 512, 4 * KiB), (0.9995, 10 * KiB, 100 * KiB), (1.0, 100 * KiB, MiB))
"""Up to this share of all values: smallest and largest size."""
TXN_OPERATIONS = (1, 1, 1, 2, 8, 32, 100)
TXN_BYTES = 384 * KiB
"""A transaction takes no further value beyond this: with a largest one it stays below etcd's default of 1.5 MiB."""
IN_FLIGHT = 24
"""Transactions sent and not yet answered; more do not make a local etcd faster."""
LEASES = 20
LEASE_TTL_S = 3600
LEASED_SHARE = 0.05
WORDS = ("metadata", "labels", "spec", "status", "conditions", "containers", "image", "registry", "ready", "True")


class KubernetesLikeWriter:
    """Writes objects under ``/registry/<kind>/<namespace>/<name>``.

    Values are JSON or look like protobuf, mostly 0.5 to 4 KiB, some 10 to 100 KiB, a few up to 1 MiB.
    One thread may write at a time; the counters may be read from any.

    Args:
        client: A connection to the etcd.
        seed: Of everything that is written.
        clock: Source of time, for the pace of ``run_until``.
    """

    def __init__(self, client: EtcdClient, *, seed: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self._client = client
        self._clock = clock
        self._rng = random.Random(seed)
        self._pool = _text_pool(self._rng)
        self._keys: list[bytes] = []
        self._created = 0
        self._in_flight: deque[Any] = deque()
        self._leases = [self._grant() for _ in range(LEASES)]
        self._first_revision = self.last_revision = client.revision()

    @property
    def revisions(self) -> int:
        """How many revisions came to be since this object was made, counted by the server."""
        return self.last_revision - self._first_revision

    def create(self, count: int) -> None:
        """Create objects as fast as etcd takes them, in transactions of mixed sizes.

        Many are on their way at once, and etcd decides their order: revisions differ from run to run, objects do not.
        """
        goal = self._created + count
        while self._created < goal:
            most = min(self._rng.choice(TXN_OPERATIONS), goal - self._created)
            self._submit(self._new_objects(most))
        self._drain()

    def churn(self, transactions: int) -> None:
        """Update, create and delete objects, single and in ranges, and revoke leases, one transaction after another."""
        for _ in range(transactions):
            self._churn_once()

    def run_until(self, stop: Cancel, per_second: float) -> None:
        """Go on with ``churn`` at a pace until told to stop.

        Args:
            stop: Looked at between transactions.
            per_second: Transactions per second.
        """
        due_s = self._clock.monotonic_s()
        while not stop.wait(max(0.0, due_s - self._clock.monotonic_s())):
            self._churn_once()
            due_s += 1 / per_second

    @contextmanager
    def running(self, per_second: float) -> Iterator[None]:
        """Run ``run_until`` in a thread for the length of a block; its error is raised at the end of the block."""
        stop = Cancel()
        errors: list[BaseException] = []

        def write() -> None:
            try:
                self.run_until(stop, per_second)
            except BaseException as error:  # noqa: BLE001 - carried to the thread that waits
                errors.append(error)

        thread = threading.Thread(target=write, name="writer")
        thread.start()
        try:
            yield
        finally:
            stop.set("the end of the block")
            thread.join()
        if errors:
            raise errors[0]

    def _churn_once(self) -> None:
        choice = self._rng.random()
        few = self._rng.choice(TXN_OPERATIONS[:-1])
        if choice < 0.2 or not self._keys:  # noqa: PLR2004 - shares of a table read in one place
            self._submit(self._new_objects(few))
        elif choice < 0.8:  # noqa: PLR2004
            self._submit(self._updates(few))
        elif choice < 0.97:  # noqa: PLR2004
            self._submit([Delete(key) for key in self._some_keys(few)])
        elif choice < 0.99:  # noqa: PLR2004
            namespace = f"/registry/events/ns-{self._rng.randrange(NAMESPACES):02d}/".encode()
            self._submit([Delete(namespace, range_end(namespace))])
        else:
            self._replace_lease()
        self._drain()  # else a deletion may overtake the put that it was meant for

    def _new_objects(self, most: int) -> list[Operation]:
        puts: list[Operation] = []
        size = 0
        while len(puts) < most and size < TXN_BYTES:
            kind = self._rng.choice(KINDS)
            namespace = f"ns-{self._rng.randrange(NAMESPACES):02d}"
            name = f"object-{self._created:07d}"
            key = f"/registry/{kind}/{namespace}/{name}".encode()
            value = self._value(kind, namespace, name)
            lease = self._rng.choice(self._leases) if self._rng.random() < LEASED_SHARE else 0
            puts.append(Put(key, value, lease))
            self._keys.append(key)
            self._created += 1
            size += len(value)
        return puts

    def _updates(self, most: int) -> list[Operation]:
        puts: list[Operation] = []
        size = 0
        for key in self._some_keys(most):
            kind, namespace, name = key.decode().removeprefix("/registry/").rsplit("/", 2)
            value = self._value(kind, namespace, name)
            puts.append(Put(key, value))
            size += len(value)
            if size > TXN_BYTES:
                break
        return puts

    def _some_keys(self, most: int) -> Sequence[bytes]:
        """Choose different keys that were created; some may be deleted by now, and then come to be again."""
        return self._rng.sample(self._keys, min(most, len(self._keys)))

    def _value(self, kind: str, namespace: str, name: str) -> bytes:
        share = self._rng.random()
        smallest, largest = next((low, high) for limit, low, high in SIZES if share <= limit)
        size = self._rng.randint(smallest, largest)
        start = self._rng.randrange(len(self._pool) - size)
        payload = self._pool[start : start + size]
        if kind.startswith("custom"):
            meta = {"name": name, "namespace": namespace, "uid": f"{self._rng.getrandbits(128):032x}"}
            return json.dumps({"kind": "Item", "metadata": meta, "data": payload.decode()}).encode()
        # Begins as the API server's protobuf does; nobody decodes it.
        return b"k8s\0\n\x08\n\x02v1" + f"\x12{kind}\x12{name}".encode() + self._rng.randbytes(16) + payload

    def _grant(self) -> int:
        request = rpc_pb2.LeaseGrantRequest(TTL=LEASE_TTL_S, ID=self._rng.getrandbits(62) + 1)
        return int(self._client.etcd3.call(self._client.etcd3.leasestub.LeaseGrant, request).ID)

    def _replace_lease(self) -> None:
        index = self._rng.randrange(len(self._leases))
        request = rpc_pb2.LeaseRevokeRequest(ID=self._leases[index])
        self._client.etcd3.call(self._client.etcd3.leasestub.LeaseRevoke, request)
        self._leases[index] = self._grant()
        self.last_revision = self._client.revision()

    def _submit(self, operations: Sequence[Operation]) -> None:
        etcd = self._client.etcd3
        self._in_flight.append(etcd.kvstub.Txn.future(transaction(operations), metadata=etcd.metadata))
        while len(self._in_flight) >= IN_FLIGHT:
            self._await_oldest()

    def _drain(self) -> None:
        while self._in_flight:
            self._await_oldest()

    def _await_oldest(self) -> None:
        with self._client.errors():
            answer = self._in_flight.popleft().result()
        self.last_revision = max(self.last_revision, answer.header.revision)


def _text_pool(rng: random.Random) -> bytes:
    """Return text of which values are cut: words and numbers, so that it compresses as objects do."""
    pieces = [rng.choice(WORDS) if rng.random() < 0.6 else f"{rng.getrandbits(64):016x}" for _ in range(200_000)]  # noqa: PLR2004
    return " ".join(pieces).encode()
