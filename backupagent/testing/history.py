"""Small nasty histories of an etcd, as data: planned from a seed, then carried out step by step on a live etcd."""

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import EtcdError, RevisionCompacted
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.rpc import rpc_pb2
from backupagent.model.snapshot import SnapshotKind
from backupagent.testing.keyspace import Delete, Operation, Put, commit, range_end
from backupagent.units import KiB

KEYS = (
    b"a", b"a\0", b"a\0b", b"aa", b"\0", b"\0\0", b"\xff", b"\xff\xff", b"/", b"//", b"b" * 3 * KiB,
    "/registry/secrets/grün/ключ-鍵".encode(), b'/quote"\\/newline\n', b"_", b"key_t", b"\x80not utf-8",
    *(f"/registry/pods/ns-{number % 3}/pod-{number}".encode() for number in range(24)),
)  # fmt: skip
"""Prefixes of each other, the ends of the order, NUL, text that must be escaped, long ones, and plain ones."""

VALUE_SIZES = (0, 0, 1, 2, 31, 32, 100, 1000, 4 * KiB - 1, 4 * KiB, 16 * KiB, 64 * KiB)
"""Nothing, about the size of a trailer, about a page, several pages."""

LEASE_IDS = (1, 2**53 + 1, 2**62 + 3, 2**63 - 1, -1, -2, -(2**53) - 1, -(2**63))
"""Beyond what a double holds, and negative: etcd takes any int64 but 0."""

EXPIRING_IDS = (2**60 + 1, -(2**60) - 1)

SURVIVING = range(2**63 - 1)
"""Leases that an etcd still knows after a restart: others stay in its file and on their keys, but are not loaded.

Source: etcd, server/lease/lessor.go, unsafeGetAllLeases reads the range [0, MaxInt64).
"""

LONG_TTL_S = 3600
SHORT_TTL_S = 3
"""etcd raises shorter ones to its election timeout of about two seconds."""

EXPIRY_TIMEOUT_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True)
class Write:
    """One transaction: one revision, or none when all it does is to delete what is not there."""

    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Grant:
    """Grant a lease."""

    lease: int
    ttl_s: int = LONG_TTL_S


@dataclass(frozen=True)
class Revoke:
    """Revoke a lease: all its keys are deleted in one revision."""

    lease: int


@dataclass(frozen=True)
class AwaitExpiry:
    """Wait until a lease with a short time to live is gone, and its keys with it."""

    lease: int


@dataclass(frozen=True)
class Compact:
    """Compact the history at the current revision less ``behind``."""

    behind: int


@dataclass(frozen=True)
class Take:
    """The test takes a snapshot here."""

    kind: SnapshotKind


@dataclass(frozen=True)
class Restart:
    """The test stops the etcd and starts it again here."""


Action: TypeAlias = Write | Grant | Revoke | AwaitExpiry | Compact
Step: TypeAlias = Action | Take | Restart


class RandomHistory:
    """Plans a history.

    The plan depends on the seed alone; what etcd makes of it differs only in when leases expire. The first
    snapshot is a full, the last step takes a delta. History is compacted only right after a snapshot, so that
    no revision is lost before it was in a delta.

    Args:
        seed: Of everything.
        steps: How many steps to plan, about.
    """

    def __init__(self, seed: int, *, steps: int = 80) -> None:
        self._rng = random.Random(seed)
        self._steps = steps
        self._granted: list[int] = []
        self._free = list(LEASE_IDS)
        self._rng.shuffle(self._free)

    def plan(self) -> tuple[Step, ...]:
        """Return the steps. Calling it again plans another history."""
        expiry = self._rng.randrange(self._steps)
        planned: list[Step] = [self._write(), Take(SnapshotKind.FULL)]
        for number in range(self._steps):
            planned.extend(self._expiring() if number == expiry else self._step())
        return (*planned, self._write(), Take(SnapshotKind.DELTA))

    def _step(self) -> Iterator[Step]:
        choice = self._rng.random()
        if choice < 0.66:  # noqa: PLR2004 - shares of a table read in one place
            yield self._write()
        elif choice < 0.74 and self._free:  # noqa: PLR2004
            self._granted.append(self._free.pop())
            yield Grant(self._granted[-1])
            yield Write((self._put(self._rng.choice(KEYS), self._granted[-1]),))
        elif choice < 0.78 and self._granted:  # noqa: PLR2004
            lease = self._granted.pop(self._rng.randrange(len(self._granted)))
            self._free.insert(0, lease)  # granted again later: the same id may live twice
            yield Revoke(lease)
        elif choice < 0.96:  # noqa: PLR2004
            yield Take(SnapshotKind.FULL if self._rng.random() < 0.15 else SnapshotKind.DELTA)  # noqa: PLR2004
            if self._rng.random() < 0.4:  # noqa: PLR2004
                yield Compact(self._rng.choice((0, 1, 3, 10)))
        else:
            yield Restart()
            self._free[:0] = [lease for lease in self._granted if lease not in SURVIVING]
            self._granted = [lease for lease in self._granted if lease in SURVIVING]

    def _expiring(self) -> Iterator[Step]:
        lease = self._rng.choice(EXPIRING_IDS)
        yield Grant(lease, SHORT_TTL_S)
        yield Write(tuple(self._put(key, lease) for key in self._rng.sample(KEYS, 3)))
        yield AwaitExpiry(lease)

    def _write(self) -> Write:
        """Plan a transaction of puts and deletions of different keys, sometimes with a whole range."""
        keys = self._rng.sample(KEYS, self._rng.choice((1, 1, 1, 2, 3, 8, len(KEYS))))
        operations: list[Operation] = []
        if self._rng.random() < 0.1:  # noqa: PLR2004
            prefix = self._rng.choice((b"/registry/pods/ns-1/", b"a", b"/"))
            end = range_end(prefix)
            keys = [key for key in keys if not prefix <= key < end]
            operations.append(Delete(prefix, end))
        for key in keys:
            lease = self._rng.choice(self._granted) if self._granted and self._rng.random() < 0.2 else 0  # noqa: PLR2004
            operations.append(Delete(key) if self._rng.random() < 0.25 else self._put(key, lease))  # noqa: PLR2004
        self._rng.shuffle(operations)
        return Write(tuple(operations))

    def _put(self, key: bytes, lease: int) -> Put:
        return Put(key, self._rng.randbytes(self._rng.choice(VALUE_SIZES)), lease)


def apply(client: EtcdClient, action: Action, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """Carry one planned step out; ``Take`` and ``Restart`` are the test's.

    Raises:
        TimeoutError: a lease did not expire.
    """
    etcd = client.etcd3
    match action:
        case Write(operations):
            commit(client, operations)
        case Grant(lease, ttl_s):
            _grant(client, lease, ttl_s)
        case Revoke(lease):
            etcd.call(etcd.leasestub.LeaseRevoke, rpc_pb2.LeaseRevokeRequest(ID=lease))
        case AwaitExpiry(lease):
            _await_expiry(client, lease, clock)
        case Compact(behind):
            _compact(client, behind)


def _grant(client: EtcdClient, lease: int, ttl_s: int) -> None:
    etcd = client.etcd3
    try:
        etcd.call(etcd.leasestub.LeaseGrant, rpc_pb2.LeaseGrantRequest(ID=lease, TTL=ttl_s))
    except EtcdError:
        # After a restart a lease may be there that the file did not hold: the log was played again.
        if lease not in client.leases():
            raise


def _await_expiry(client: EtcdClient, lease: int, clock: Clock) -> None:
    deadline_s = clock.monotonic_s() + EXPIRY_TIMEOUT_S
    # Not its time to live: that is over before the keys are gone.
    while lease in client.leases():
        if clock.monotonic_s() > deadline_s:
            message = f"lease {lease} did not expire within {EXPIRY_TIMEOUT_S:g} s"
            raise TimeoutError(message)
        clock.sleep(POLL_S)


def _compact(client: EtcdClient, behind: int) -> None:
    revision = client.revision() - behind
    with suppress(RevisionCompacted):  # an earlier step went further
        if revision > 1:
            client.compact(revision)
