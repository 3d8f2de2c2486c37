"""Whether two etcds are told apart."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.testing.equality import Content, compare_with
from backupagent.testing.keyspace import Delete, Put, commit
from backupagent.testing.servers import EtcdServer

pytestmark = pytest.mark.servers

WRITES = ([Put(b"a", b"1")], [Put(b"b", b"1")], [Put(b"a", b"2")], [Delete(b"b")])


@pytest.fixture
def etcd(server_binary: Callable[[str], Path]) -> Iterator[Callable[..., EtcdClient]]:
    server_binary("etcd")
    servers, clients = [], []

    def start(*writes: list[Put | Delete]) -> EtcdClient:
        servers.append(EtcdServer())
        servers[-1].start()
        clients.append(EtcdClient.open(EtcdAccess(endpoints=(servers[-1].url,))))
        for write in writes:
            commit(clients[-1], write)
        return clients[-1]

    yield start
    for each in (*clients, *servers):
        each.close()


def test_what_was_written_later_or_not_compacted_makes_no_difference(etcd) -> None:
    source, destination = etcd(*WRITES), etcd(*WRITES)
    source.compact(3)
    content = Content.of(source)
    commit(destination, [Put(b"c", b"later")])
    comparison = compare_with(content, destination)
    assert comparison.equal, comparison
    assert (comparison.destination.revision, comparison.destination.compact_revision) == (5, 3)


@pytest.mark.parametrize(
    ("writes", "difference"),
    [
        (WRITES[:3], "revision 4, the old etcd had 5"),
        ((), "revision 1, the old etcd had 5"),
        ((*WRITES[:2], [Put(b"a", b"3")], WRITES[3]), "value of key b'a': b'2' and b'3'"),
        ((*WRITES[:3], [Put(b"c", b"1")]), "key b'b' is only on the right"),
    ],
    ids=["less", "nothing", "another value", "other keys"],
)
def test_a_difference_is_named(etcd, writes, difference: str) -> None:
    comparison = compare_with(Content.of(etcd(*WRITES)), etcd(*writes))
    assert (comparison.equal, comparison.difference) == (False, difference)


def test_the_same_keys_with_another_history_differ(etcd) -> None:
    writes = (WRITES[0], [Put(b"b", b"other")], *WRITES[2:])
    comparison = compare_with(Content.of(etcd(*WRITES)), etcd(*writes))
    assert (comparison.equal, comparison.difference) == (False, None)
    assert comparison.source.hash != comparison.destination.hash


def test_a_lost_lease_is_a_difference(etcd) -> None:
    source, destination = etcd(*WRITES), etcd(*WRITES)
    source.etcd3.call(source.etcd3.leasestub.LeaseGrant, source.etcd3.messages.LeaseGrantRequest(TTL=600, ID=7))
    comparison = compare_with(Content.of(source), destination)
    assert (comparison.equal, comparison.difference) == (False, "0 leases, the old etcd had 1")
