"""Events become the elements that etcd would have stored, and nothing is missed, doubled or made up."""

import google_crc32c
import pytest
from histories import TRANSACTIONS, events_of, items_of
from hypothesis import given
from hypothesis import strategies as st

from backupagent.errors import IntegrityError, MalformedContent, RevisionGap
from backupagent.etcd.boltfile.layout import LEAF_ELEMENT, PAGE_HEADER
from backupagent.etcd.mvcc.keyvalue import decode
from backupagent.etcd.mvcc.pages import EventPages, LeafBody
from backupagent.model.event import DELETE, Change, Event, KeyValue

Transactions = list[dict[bytes, tuple[bytes, int] | None]]


def put(revision: int, key: bytes = b"k", **fields: int) -> Event:
    kv = KeyValue(key, create_revision=revision, mod_revision=revision, version=1, value=b"v")
    for name, number in fields.items():
        setattr(kv, name, number)
    return Event(Change(kv=kv))


def delete(revision: int, key: bytes = b"k") -> Event:
    return Event(Change(type=DELETE, kv=KeyValue(key=key, mod_revision=revision)))


def items(leaves: list[LeafBody]) -> list[tuple[bytes, bytes]]:
    found = []
    for leaf in leaves:
        page = bytes(PAGE_HEADER.size) + leaf.table + leaf.data
        for index in range(leaf.element_count):
            start = PAGE_HEADER.size + index * LEAF_ELEMENT.size
            flags, position, key_size, value_size = LEAF_ELEMENT.unpack_from(page, start)
            assert flags == 0
            middle = start + position + key_size
            found.append((page[start + position : middle], page[middle : middle + value_size]))
        assert found[-leaf.element_count][0] == leaf.first_key
    return found


@given(transactions=TRANSACTIONS, page_size=st.sampled_from([1024, 4096, 65536]), batch=st.integers(1, 9))
def test_elements_are_those_that_etcd_stores(transactions: Transactions, page_size: int, batch: int) -> None:
    events = events_of(transactions)
    pages = EventPages(page_size, 1)
    pages.begin("Incr-1")
    leaves = [leaf for at in range(0, len(events), batch) for leaf in pages.add(events[at : at + batch])]
    leaves += pages.take()

    assert items(leaves) == [(key.encode(), value) for key, value in items_of(events)]
    assert pages.events == len(events)
    assert pages.revision == (events[-1].etcdEvent.kv.mod_revision if events else 1)
    data = b"".join(leaf.data for leaf in leaves)
    assert (pages.crc, pages.size) == (google_crc32c.value(data), len(data))
    for leaf in leaves:
        size = PAGE_HEADER.size + len(leaf.table) + len(leaf.data)
        assert size <= page_size * 0.9 or leaf.element_count == 1


@given(transactions=TRANSACTIONS)
def test_attached_leases_are_those_of_newest_versions(transactions: Transactions) -> None:
    events = events_of(transactions)
    pages = EventPages(4096, 1)
    pages.begin("Incr-1")
    pages.add(events)

    newest = {event.etcdEvent.kv.key: event.etcdEvent.kv.lease for event in events}
    assert pages.leases.attached() == {lease for lease in newest.values() if lease}


def test_stripping_leases() -> None:
    pages = EventPages(4096, 1, strip_leases=True)
    pages.begin("Incr-1")
    pages.add([put(2, lease=77)])
    [(_, value)] = items(pages.take())

    assert decode(value, "x").lease == 0
    assert pages.leases.attached() == frozenset()


def test_a_value_larger_than_a_page_has_a_page_of_its_own() -> None:
    pages = EventPages(1024, 1)
    pages.begin("Incr-1")
    big = put(3)
    big.etcdEvent.kv.value = bytes(5000)
    leaves = [*pages.add([put(2), big, put(4)]), *pages.take()]

    assert [leaf.element_count for leaf in leaves] == [1, 1, 1]


def test_revisions_that_are_there_are_left_out() -> None:
    pages = EventPages(4096, 5)
    pages.begin("Incr-1")
    first = [put(3), put(4), put(5), put(6), put(6, b"other"), put(7)]
    pages.add(first[:2])
    pages.add(first[2:])
    pages.begin("Incr-2")
    pages.add([put(6), put(6, b"other"), put(7), put(8)])

    assert [key.hex()[14:16] + key.hex()[-2:] for key, _ in items(pages.take())] == ["0600", "0601", "0700", "0800"]
    assert (pages.revision, pages.events) == (8, 4)


@pytest.mark.parametrize(
    ("events", "error", "message"),
    [
        ([put(4)], RevisionGap, "revisions 2 to 3 are missing before the event of revision 4"),
        ([put(2), put(4)], RevisionGap, "revision 3 is missing"),
        ([put(2), delete(4)], RevisionGap, "revision 3 is missing"),
        ([put(2), put(3), put(2)], MalformedContent, "of revision 2 comes behind one of revision 3"),
        ([put(2), put(1)], MalformedContent, "comes behind"),
        ([put(2), put(3), put(2**70)], RevisionGap, "are missing"),
        ([put(2, version=0)], MalformedContent, "event 0 of revision 2 is a put with a wrong"),
        ([put(2), put(2, version=-1)], MalformedContent, "event 1 of revision 2"),
        ([put(2, version=3)], MalformedContent, "version"),
        ([put(2, create_revision=0)], MalformedContent, "create"),
        ([put(2, create_revision=3)], MalformedContent, "create"),
        ([put(2, b"")], MalformedContent, "key"),
        ([delete(2, b"")], MalformedContent, "neither a put nor a deletion of a key"),
        ([put(2, lease=2**63)], MalformedContent, "64 bits"),
        ([Event(Change(type=2, kv=put(2).etcdEvent.kv))], MalformedContent, "neither"),
    ],
)
def test_events_that_no_etcd_makes_are_refused(events: list[Event], error: type[IntegrityError], message: str) -> None:
    pages = EventPages(4096, 1)
    pages.begin("Incr-00000002-00000009-1")

    with pytest.raises(error, match=message) as caught:
        pages.add(events)
    assert caught.value.key == "Incr-00000002-00000009-1"


def test_raising_the_revision() -> None:
    pages = EventPages(4096, 1)
    pages.begin("Incr-1")
    pages.add([put(2)])
    found = items(pages.bump(1000))

    assert [value for _, value in found[1:]] == [b""]
    assert pages.revision == 1002
