"""The sha256 at the end of a snapshot: found right, wrong, cut off or missing."""

import hashlib
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.errors import ChecksumMismatch, IntegrityError, TrailerMissing, TruncatedObject
from backupagent.model.snapshot import SnapshotKind
from backupagent.model.trailer import ContentDigest, TrailerCheck

GOLDEN = Path(__file__).parents[2] / "golden"
WITHOUT_LZW = sorted(path for path in GOLDEN.glob("*/v2/*") if ".Z" not in path.name)
"""The tests of the codec read the others."""

FULL, DELTA = SnapshotKind.FULL, SnapshotKind.DELTA

DB = bytes(range(256)) * 16
"""Eight sectors."""

EVENTS = b'[{"etcdEvent":{"kv":{"key":"YQ==","mod_revision":1}},"time":"2026-11-23T02:23:30Z"}]'


def with_trailer(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def check(kind: SnapshotKind, content: bytes, cuts: list[int] | None = None) -> ContentDigest:
    trailer = TrailerCheck(kind, "v2/x")
    for start, end in pairwise([0, *sorted(cuts or []), len(content)]):
        trailer.update(memoryview(content)[start:end])
    return trailer.finish()


def test_golden_snapshots_are_there() -> None:
    assert len(WITHOUT_LZW) == 20


@pytest.mark.parametrize("path", WITHOUT_LZW, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_trailers_of_the_peer_are_right(path: Path) -> None:
    kind = FULL if path.name.startswith("Full") else DELTA
    stored = path.read_bytes()
    content = zlib.decompress(stored, wbits=47) if ".gz" in path.name or ".zlib" in path.name else stored
    digest = check(kind, content)
    assert digest.sha256 == content[-32:].hex()


@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(0, 340), max_size=8))
def test_digests_do_not_depend_on_how_the_content_arrives(content: bytes, cuts: list[int]) -> None:
    whole = with_trailer(content)
    digest = check(FULL, whole, [min(cut, len(whole)) for cut in cuts])
    assert digest == ContentDigest(
        sha256=hashlib.sha256(content).hexdigest(),
        sha256_with_trailer=hashlib.sha256(whole).hexdigest(),
        size=len(whole),
    )


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_split_gives_everything_but_the_last_32_bytes(content: bytes, cuts: list[int]) -> None:
    trailer = TrailerCheck(DELTA, "v2/x")
    given_on = b""
    for start, end in pairwise([0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]):
        given_on += b"".join(bytes(piece) for piece in trailer.split(content[start:end]))
    assert given_on == content[:-32]


@given(st.integers(0, len(DB) + 31), st.integers(1, 255))
def test_a_changed_byte_of_a_full_is_noticed(position: int, flip: int) -> None:
    damaged = bytearray(with_trailer(DB))
    damaged[position] ^= flip
    with pytest.raises(ChecksumMismatch, match=r"sha256 of the content is [0-9a-f]{64}, its trailer says [0-9a-f]{64}"):
        check(FULL, bytes(damaged))


@given(st.integers(1, len(EVENTS) - 2), st.integers(1, 255))
def test_a_changed_byte_of_a_delta_is_noticed(position: int, flip: int) -> None:
    damaged = bytearray(with_trailer(EVENTS))
    damaged[position] ^= flip
    with pytest.raises(ChecksumMismatch):
        check(DELTA, bytes(damaged))


@given(st.integers(33, len(DB) + 31))
def test_a_full_that_ends_early_is_never_taken_for_whole(size: int) -> None:
    with pytest.raises(IntegrityError) as caught:
        check(FULL, with_trailer(DB)[:size])
    # Cut at a sector it looks like a db without digest, cut 32 bytes behind one like a changed content.
    expected = {0: TrailerMissing, 32: ChecksumMismatch}.get(size % 512, TruncatedObject)
    assert type(caught.value) is expected


@given(st.integers(33, len(EVENTS) + 31))
def test_a_delta_that_ends_early_is_truncated(size: int) -> None:
    with pytest.raises(TruncatedObject if size != len(EVENTS) else TrailerMissing):
        check(DELTA, with_trailer(EVENTS)[:size])


@pytest.mark.parametrize(("kind", "content"), [(FULL, DB), (DELTA, EVENTS)])
def test_content_without_a_digest_is_told_from_a_changed_one(kind: SnapshotKind, content: bytes) -> None:
    with pytest.raises(TrailerMissing, match="does not end with its sha256") as caught:
        check(kind, content)
    assert caught.value.key == "v2/x"


@pytest.mark.parametrize("size", [0, 1, 31, 32])
@pytest.mark.parametrize("kind", [FULL, DELTA])
def test_nothing_but_a_trailer_is_truncated(kind: SnapshotKind, size: int) -> None:
    with pytest.raises(TruncatedObject, match=f"only {size} bytes of content"):
        check(kind, hashlib.sha256(b"").digest()[:size])
