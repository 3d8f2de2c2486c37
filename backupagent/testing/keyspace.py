"""Writing transactions into a live etcd, reading everything out of it, and comparing two of them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple, TypeAlias

from backupagent.etcd.client import EtcdClient
from backupagent.etcd.rpc import rpc_pb2

PAGE_KEYS = 1000
"""Keys in one answer: with the largest values that still is one gRPC message."""

SHOWN = 60
"""Bytes of a key or value in a difference."""

FROM_HERE = b"\0"
"""As the end of a range: every key from its start on. Source: etcd, api/etcdserverpb/rpc.proto, RangeRequest."""


@dataclass(frozen=True)
class Put:
    """Write a key.

    Attributes:
        key: The key.
        value: Its value.
        lease: Id of the lease to attach, 0 for none.
    """

    key: bytes
    value: bytes
    lease: int = 0


@dataclass(frozen=True)
class Delete:
    """Delete a key or a range.

    Attributes:
        key: The key, or the first of the range.
        end: The key behind the range; empty for one key.
    """

    key: bytes
    end: bytes = b""


Operation: TypeAlias = Put | Delete


class StoredKey(NamedTuple):
    """A key as etcd holds it.

    Attributes:
        key: The key.
        value: Its value.
        create_revision: Revision at which it came to be.
        mod_revision: Revision of its last change.
        version: Number of changes since it came to be.
        lease: Id of the attached lease, 0 for none.
    """

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


def transaction(operations: Iterable[Operation]) -> rpc_pb2.TxnRequest:
    """Return a request that does everything in one revision; no key may be put twice, or put and deleted."""
    return rpc_pb2.TxnRequest(success=[_request(operation) for operation in operations])


def commit(client: EtcdClient, operations: Iterable[Operation]) -> int:
    """Do everything in one revision.

    Returns:
        The store's revision afterwards; deletions that met nothing make none.
    """
    answer = client.etcd3.call(client.etcd3.kvstub.Txn, transaction(operations))
    return int(answer.header.revision)


def range_end(prefix: bytes) -> bytes:
    """Return the end of the range of all keys with a prefix."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else FROM_HERE


def read_everything(client: EtcdClient, *, page_keys: int = PAGE_KEYS, revision: int = 0) -> list[StoredKey]:
    """Read all keys at one revision, in order.

    Args:
        client: A connection to the etcd.
        page_keys: Keys in one answer.
        revision: The revision; 0 for that of the first answer.
    """
    found: list[StoredKey] = []
    start, more = b"\0", True
    while more:
        request = rpc_pb2.RangeRequest(key=start, range_end=FROM_HERE, limit=page_keys, revision=revision)
        answer = client.etcd3.call(client.etcd3.kvstub.Range, request)
        revision = revision or answer.header.revision
        found.extend(
            StoredKey(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease) for kv in answer.kvs
        )
        more = answer.more
        if more:
            start = found[-1].key + b"\0"
    return found


def compare(left: Sequence[StoredKey], right: Sequence[StoredKey]) -> str | None:
    """Return the first difference between two keyspaces in words, or None when they are the same."""
    for mine, other in zip_longest(left, right):
        if mine == other:
            continue
        if other is None or (mine is not None and mine.key < other.key):
            return f"key {mine.key!r} is only on the left"
        if mine is None or other.key < mine.key:
            return f"key {other.key!r} is only on the right"
        field = next(name for name in StoredKey._fields if getattr(mine, name) != getattr(other, name))
        return f"{field} of key {mine.key!r}: {_shown(getattr(mine, field))} and {_shown(getattr(other, field))}"
    return None


def _request(operation: Operation) -> rpc_pb2.RequestOp:
    if isinstance(operation, Put):
        put = rpc_pb2.PutRequest(key=operation.key, value=operation.value, lease=operation.lease)
        return rpc_pb2.RequestOp(request_put=put)
    delete = rpc_pb2.DeleteRangeRequest(key=operation.key, range_end=operation.end)
    return rpc_pb2.RequestOp(request_delete_range=delete)


def _shown(value: object) -> str:
    if isinstance(value, bytes) and len(value) > SHOWN:
        return f"{value[:SHOWN]!r}... ({len(value)} bytes, sha256 {hashlib.sha256(value).hexdigest()[:12]})"
    return repr(value)
