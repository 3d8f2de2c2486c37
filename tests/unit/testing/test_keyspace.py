"""Comparing keyspaces, and the ranges of prefixes."""

import pytest

from backupagent.testing.keyspace import FROM_HERE, StoredKey, compare, range_end

A = StoredKey(b"a", b"1", 2, 3, 2, 0)
B = StoredKey(b"b", b"2", 4, 4, 1, -5)


@pytest.mark.parametrize(
    ("left", "right", "difference"),
    [
        ([], [], None),
        ([A, B], [A, B], None),
        ([A, B], [A], "key b'b' is only on the left"),
        ([A], [A, B], "key b'b' is only on the right"),
        ([A, B], [B], "key b'a' is only on the left"),
        ([B], [A, B], "key b'a' is only on the right"),
        ([A], [A._replace(value=b"x")], "value of key b'a': b'1' and b'x'"),
        ([A], [A._replace(create_revision=1)], "create_revision of key b'a': 2 and 1"),
        ([A, B], [A, B._replace(lease=5)], "lease of key b'b': -5 and 5"),
    ],
)
def test_the_first_difference_is_told(left: list[StoredKey], right: list[StoredKey], difference: str | None) -> None:
    assert compare(left, right) == difference


def test_long_values_are_shown_by_beginning_size_and_digest() -> None:
    told = compare([A._replace(value=bytes(1000))], [A._replace(value=bytes(999) + b"x")])

    assert told is not None
    assert len(told) < 700
    assert told.count("1000 bytes, sha256 ") == 2


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"a", b"b"), (b"a/", b"a0"), (b"a\xff\xff", b"b"), (b"\xff", FROM_HERE), (b"", FROM_HERE)]
)
def test_a_range_ends_behind_all_keys_with_the_prefix(prefix: bytes, end: bytes) -> None:
    assert range_end(prefix) == end
