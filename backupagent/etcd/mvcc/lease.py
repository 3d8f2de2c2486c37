"""The ``lease`` bucket: ``leasepb.Lease`` by id.

Which keys a lease is attached to is not stored; etcd finds it out from the newest version of each key when it
starts. Source: etcd, server/lease/lessor.go, server/storage/schema/lease.go and leasepb/lease.proto at v3.7.1.
"""

from dataclasses import dataclass

from backupagent.errors import MalformedContent
from backupagent.etcd.protowire import decode_fields, encode_number, to_signed

LEASE_BUCKET = b"lease"
_ID, _TTL, _REMAINING_TTL = 1, 2, 3
_ID_SIZE = 8


@dataclass(frozen=True)
class Lease:
    """A lease.

    Attributes:
        id: Its id, signed.
        ttl_s: Granted time to live, seconds.
        remaining_ttl_s: What a checkpoint left of it, seconds; 0 for all.
    """

    id: int
    ttl_s: int
    remaining_ttl_s: int = 0

    def encode(self) -> bytes:
        """Write the bucket's value; zero fields are left out."""
        numbers = ((_ID, self.id), (_TTL, self.ttl_s), (_REMAINING_TTL, self.remaining_ttl_s))
        return b"".join(encode_number(field, number) for field, number in numbers if number)

    @classmethod
    def decode(cls, value: bytes, where: str) -> "Lease":
        """Read a value of the bucket.

        Args:
            value: The value.
            where: The object, for the message.

        Raises:
            MalformedContent: it is not a lease.
        """
        try:
            fields = {field: number for field, number in decode_fields(value) if isinstance(number, int)}
        except ValueError as error:
            message = f"not a lease: {error}"
            raise MalformedContent(message, key=where) from error
        return cls(*(to_signed(fields.get(field, 0)) for field in (_ID, _TTL, _REMAINING_TTL)))


def encode_lease_key(lease_id: int) -> bytes:
    """Write the bucket's key of a lease; ids that etcd made up are positive, ids of clients may be negative."""
    return lease_id.to_bytes(_ID_SIZE, "big", signed=True)


def decode_lease_key(key: bytes, where: str) -> int:
    """Read the bucket's key of a lease.

    Raises:
        MalformedContent: it is not eight bytes long.
    """
    if len(key) != _ID_SIZE:
        message = f"{key[:16].hex()} is not the id of a lease"
        raise MalformedContent(message, key=where)
    return int.from_bytes(key, "big", signed=True)
