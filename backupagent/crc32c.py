"""CRC32C of concatenated parts, from the CRCs of the parts.

``google_crc32c`` takes only ``bytes`` and holds the GIL, so large contents are summed in pieces, possibly by several
processes, and put together here. The arithmetic is zlib's ``crc32_combine`` over the Castagnoli polynomial.
"""

from functools import lru_cache

import google_crc32c

POLYNOMIAL = 0x82F63B78
"""Castagnoli, bits reversed. Source: RFC 3720, appendix B.4."""

_ONE = 1 << 31
"""The polynomial 1: coefficients run from bit 31 down."""


def extend(crc: int, data: bytes) -> int:
    """Return the CRC of what ``crc`` covers and ``data`` behind it; the CRC of nothing is 0."""
    return int(google_crc32c.extend(crc, data))


def combine(first: int, second: int, second_size: int) -> int:
    """Return the CRC of two parts, one behind the other.

    Args:
        first: CRC of the first part.
        second: CRC of the second part.
        second_size: Bytes of the second part.
    """
    return _multiply(_shift(second_size), first) ^ second


def _multiply(left: int, right: int) -> int:
    product, bit = 0, _ONE
    while bit:
        if left & bit:
            product ^= right
        bit >>= 1
        right = right >> 1 ^ POLYNOMIAL if right & 1 else right >> 1
    return product


@lru_cache(maxsize=64)
def _power(exponent_of_two: int) -> int:
    """Return x to the power of 2**n, modulo the polynomial."""
    if exponent_of_two == 0:
        return _ONE >> 1
    root = _power(exponent_of_two - 1)
    return _multiply(root, root)


def _shift(size: int) -> int:
    """Return x to the power of the number of bits in ``size`` bytes, modulo the polynomial."""
    power, exponent_of_two = _ONE, 3
    while size:
        if size & 1:
            power = _multiply(_power(exponent_of_two), power)
        size >>= 1
        exponent_of_two += 1
    return power
