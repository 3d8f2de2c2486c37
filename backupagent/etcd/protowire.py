"""The protobuf wire format, as much of it as etcd's stored messages need.

Source: protobuf.dev/programming-guides/encoding. By hand because these few messages are on the hot path of a
restore, and because generated modules would pull gRPC into it.
"""

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_VARINT_SIZE = 10
_UINT64 = 0xFFFF_FFFF_FFFF_FFFF
_SIGN = 1 << 63


def encode_varint(number: int) -> bytes:
    """Write a number; a negative one as its 64-bit two's complement, ten bytes, as int64 fields are."""
    rest = number & _UINT64
    encoded = bytearray()
    while rest > 0x7F:  # noqa: PLR2004 - seven bits a byte
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def encode_number(field: int, number: int) -> bytes:
    """Write a varint field, also when it is zero (proto2 does, proto3 leaves it out)."""
    return encode_varint(field << 3 | VARINT) + encode_varint(number)


def encode_bytes(field: int, data: bytes) -> bytes:
    """Write a field of bytes, a string or an embedded message, also when it is empty."""
    return b"".join((encode_varint(field << 3 | LENGTH), encode_varint(len(data)), data))


def decode_varint(data: bytes, position: int) -> tuple[int, int]:
    """Read an unsigned number.

    Returns:
        The number, and the position behind it.

    Raises:
        ValueError: it is cut, or longer than 64 bits.
    """
    number = shift = 0
    for byte in data[position : position + MAX_VARINT_SIZE]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the last byte has no continuation bit
            if number > _UINT64:
                break
            return number, position + shift // 7
    message = f"no number at byte {position}"
    raise ValueError(message)


def decode_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield field numbers and values of a message: varints unsigned, everything else as its bytes.

    Raises:
        ValueError: not a message.
    """
    position = 0
    while position < len(data):
        tag, position = decode_varint(data, position)
        kind = tag & 0x07
        if kind == VARINT:
            number, position = decode_varint(data, position)
            yield tag >> 3, number
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(kind)
        if kind == LENGTH:
            size, position = decode_varint(data, position)
        if size is None or position + size > len(data):
            message = f"no field ends at byte {len(data)}"
            raise ValueError(message)
        yield tag >> 3, data[position : position + size]
        position += size


def to_signed(number: int) -> int:
    """Turn an unsigned 64-bit number into the int64 that it stands for."""
    return number - (1 << 64) if number & _SIGN else number
