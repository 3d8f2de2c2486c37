"""Whether an etcd holds what another one held that is gone by now."""

from collections.abc import Sequence
from dataclasses import dataclass

from backupagent.etcd.client import EtcdClient, HashKV
from backupagent.testing.keyspace import StoredKey, compare, read_everything


@dataclass(frozen=True)
class Content:
    """What an etcd held.

    Attributes:
        keys: All keys, with values and revisions.
        leases: Ids of all leases, in order.
        hash_kv: Its HashKV.
    """

    keys: Sequence[StoredKey]
    leases: Sequence[int]
    hash_kv: HashKV

    @classmethod
    def of(cls, client: EtcdClient) -> "Content":
        """Read an etcd that nobody writes to."""
        return cls(read_everything(client), sorted(client.leases()), client.hash_kv())


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        difference: The first difference of keys or leases; None when there is none.
        source: HashKV of the one that is gone.
        destination: HashKV of the other at the same revision, compacted as far.
    """

    difference: str | None
    source: HashKV
    destination: HashKV

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.difference is None and self.source == self.destination


def compare_with(source: Content, client: EtcdClient) -> Comparison:
    """Compare a live etcd at the revision at which the other one ended; it may have been written to since.

    It is compacted where the source was: HashKV depends on that, and a snapshot may be older than the source's last
    compaction.
    """
    revision, compacted = source.hash_kv.revision, source.hash_kv.compact_revision
    newest = client.hash_kv()
    if newest.revision < revision:
        return Comparison(f"revision {newest.revision}, the old etcd had {revision}", source.hash_kv, newest)
    if newest.compact_revision < compacted:
        client.compact(compacted)
    difference = compare(source.keys, read_everything(client, revision=revision))
    leases = sorted(client.leases())
    if difference is None and source.leases != leases:
        difference = f"{len(leases)} leases, the old etcd had {len(source.leases)}"
    return Comparison(difference, source.hash_kv, client.hash_kv(revision))
