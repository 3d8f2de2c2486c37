"""Encodings of etcd's stored messages, against values that a real etcd stored and against the generated protobuf."""

import contextlib
import random

import google_crc32c
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backupagent.crc32c import combine, extend
from backupagent.errors import MalformedContent
from backupagent.etcd import protowire
from backupagent.etcd.mvcc import keyvalue
from backupagent.etcd.mvcc.lease import Lease, decode_lease_key, encode_lease_key
from backupagent.etcd.mvcc.revision import RevisionKey, encode_main
from backupagent.etcd.rpc import kv_pb2
from backupagent.model.event import Change, Event, KeyValue

INT64 = st.integers(-(2**63), 2**63 - 1)
REVISIONS = st.integers(0, 2**63 - 1)
KEY_VALUES = st.builds(
    KeyValue,
    key=st.binary(max_size=300),
    create_revision=REVISIONS,
    mod_revision=REVISIONS,
    version=REVISIONS,
    value=st.binary(max_size=300),
    lease=INT64,
)


@given(kv=KEY_VALUES)
@example(kv=KeyValue())
@example(kv=KeyValue(key=b"k", lease=-1))
def test_key_values_as_protobuf_writes_them(kv: KeyValue) -> None:
    fields = {name: getattr(kv, name) for name in kv.__struct_fields__}
    encoded = keyvalue.encode_put(kv)

    assert encoded == kv_pb2.KeyValue(**fields).SerializeToString(deterministic=True)
    assert keyvalue.decode(encoded, "x") == kv
    framed = b"before" + encoded + b"after"
    assert keyvalue.user_key(framed, 6, 6 + len(encoded), "x") == kv.key


def test_a_deletion_holds_its_key_alone() -> None:
    event = Event(Change(type=1, kv=KeyValue(key=b"k", mod_revision=7)))

    assert keyvalue.encode_event(event) == b"\n\1k"


def test_without_lease() -> None:
    event = Event(Change(kv=KeyValue(key=b"k", lease=7)))

    assert keyvalue.decode(keyvalue.encode_event(event, with_lease=False), "x") == KeyValue(key=b"k")


def test_the_element_of_a_raised_revision_has_no_key() -> None:
    assert keyvalue.user_key(b"", 0, 0, "x") == b""


@given(data=st.binary(max_size=40))
def test_any_bytes_are_a_key_value_or_refused(data: bytes) -> None:
    with contextlib.suppress(MalformedContent):
        kv = keyvalue.decode(data, "Full-1")
        assert keyvalue.decode(keyvalue.encode_put(kv), "Full-1") == kv


@pytest.mark.parametrize("data", [b"\n", b"\n\2k", b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", b"\x0b", b"\x80"])
def test_damaged_key_values_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedContent, match="not a KeyValue"):
        keyvalue.user_key(data, 0, len(data), "x")


@given(number=INT64)
def test_varints(number: int) -> None:
    encoded = protowire.encode_varint(number)

    unsigned, end = protowire.decode_varint(b"x" + encoded + b"x", 1)
    assert (protowire.to_signed(unsigned), end) == (number, 1 + len(encoded))


def test_a_number_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="no number"):
        protowire.decode_varint(b"\xff" * 9 + b"\2", 0)


@given(main=REVISIONS, sub=REVISIONS, is_tombstone=st.booleans())
def test_revision_keys(main: int, sub: int, is_tombstone: bool) -> None:
    revision = RevisionKey(main, sub, is_tombstone)

    assert RevisionKey.decode(revision.encode(), "x") == revision
    assert revision.encode().startswith(encode_main(main))


@given(left=st.tuples(REVISIONS, REVISIONS), right=st.tuples(REVISIONS, REVISIONS))
def test_revision_keys_sort_like_revisions(left: tuple[int, int], right: tuple[int, int]) -> None:
    encoded = [RevisionKey(*each, is_tombstone=False).encode() for each in (left, right)]

    assert (encoded[0] < encoded[1]) == (left < right)


@pytest.mark.parametrize(
    "key", [b"", b"x" * 17, b"\xff" * 8 + b"_" + bytes(8), bytes(8) + b"_" + bytes(8) + b"x", bytes(8) + b"_"]
)
def test_other_keys_are_refused(key: bytes) -> None:
    with pytest.raises(MalformedContent, match="not the key of a revision"):
        RevisionKey.decode(key, "x")


@given(id_=INT64, ttl_s=st.integers(0, 2**40), remaining_ttl_s=st.integers(0, 2**40))
def test_leases(id_: int, ttl_s: int, remaining_ttl_s: int) -> None:
    lease = Lease(id_, ttl_s, remaining_ttl_s)

    assert Lease.decode(lease.encode(), "x") == lease
    assert decode_lease_key(encode_lease_key(id_), "x") == id_


def test_a_lease_as_etcd_wrote_it() -> None:
    # From the lease bucket of tests/golden/none's full: id 72e2a206370f930b, an hour.
    stored = bytes.fromhex("088ba6beb8e3c0a8f17210901c")

    assert Lease.decode(stored, "x") == Lease(0x72E2A206370F930B, 3600)
    assert Lease(0x72E2A206370F930B, 3600).encode() == stored


def test_damaged_leases_are_refused() -> None:
    with pytest.raises(MalformedContent, match="not a lease"):
        Lease.decode(b"\x08", "x")
    with pytest.raises(MalformedContent, match="not the id"):
        decode_lease_key(b"1234567", "x")


@given(first=st.binary(max_size=2000), second=st.binary(max_size=2000))
def test_crcs_of_parts_give_the_crc_of_the_whole(first: bytes, second: bytes) -> None:
    whole = google_crc32c.value(first + second)

    assert combine(extend(0, first), extend(0, second), len(second)) == whole == extend(extend(0, first), second)


def test_crcs_of_large_parts() -> None:
    second = random.Random(1).randbytes(3_000_001)

    assert combine(extend(0, b"first"), extend(0, second), len(second)) == extend(0, b"first" + second)
