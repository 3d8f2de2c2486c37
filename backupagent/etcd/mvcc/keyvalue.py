"""Values of the ``key`` bucket: ``mvccpb.KeyValue``.

A put holds all fields that are not zero, a deletion its key alone. Source: etcd, api/mvccpb/kv.proto and
server/storage/mvcc/kvstore_txn.go at v3.7.1.
"""

from backupagent.errors import MalformedContent
from backupagent.etcd.protowire import decode_fields, encode_bytes, encode_number, to_signed
from backupagent.model.event import DELETE, Event, KeyValue

KEY, CREATE_REVISION, MOD_REVISION, VERSION, VALUE, LEASE = range(1, 7)
_KEY_TAG = KEY << 3 | 2
_ONE_BYTE = 0x80


def encode_put(kv: KeyValue, *, with_lease: bool = True) -> bytes:
    """Write the value of a put, with or without its lease id."""
    return b"".join((
        encode_bytes(KEY, kv.key) if kv.key else b"",
        encode_number(CREATE_REVISION, kv.create_revision) if kv.create_revision else b"",
        encode_number(MOD_REVISION, kv.mod_revision) if kv.mod_revision else b"",
        encode_number(VERSION, kv.version) if kv.version else b"",
        encode_bytes(VALUE, kv.value) if kv.value else b"",
        encode_number(LEASE, kv.lease) if kv.lease and with_lease else b"",
    ))  # fmt: skip


def encode_event(event: Event, *, with_lease: bool = True) -> bytes:
    """Write the value of an event: of a put, with or without its lease id, or of a deletion."""
    kv = event.etcdEvent.kv
    return encode_bytes(KEY, kv.key) if event.etcdEvent.type == DELETE else encode_put(kv, with_lease=with_lease)


def decode(value: bytes, where: str) -> KeyValue:
    """Read a value; a deletion gives a KeyValue with nothing but its key.

    Args:
        value: The value.
        where: The object, for the message.

    Raises:
        MalformedContent: it is not a KeyValue.
    """
    try:
        fields = dict(decode_fields(value))
    except ValueError as error:
        message = f"not a KeyValue: {error}"
        raise MalformedContent(message, key=where) from error

    def number(field: int) -> int:
        content = fields.get(field, 0)
        return to_signed(content) if isinstance(content, int) else 0

    def data(field: int) -> bytes:
        content = fields.get(field, b"")
        return content if isinstance(content, bytes) else b""

    return KeyValue(
        key=data(KEY),
        create_revision=number(CREATE_REVISION),
        mod_revision=number(MOD_REVISION),
        version=number(VERSION),
        value=data(VALUE),
        lease=number(LEASE),
    )


def user_key(data: bytes, start: int, end: int, where: str) -> bytes:
    """Return the key that a value is about, without decoding or copying the rest.

    Empty for the empty value that ``etcdutl snapshot restore --bump-revision`` leaves.

    Args:
        data: Bytes that hold the value.
        start: Where the value starts.
        end: Where it ends.
        where: The object, for the message.

    Raises:
        MalformedContent: it is not a KeyValue.
    """
    if end - start > 1 and data[start] == _KEY_TAG and data[start + 1] < _ONE_BYTE:
        key_start = start + 2
        key_end = key_start + data[start + 1]
        if key_end <= end:
            return data[key_start:key_end]
    return decode(data[start:end], where).key
