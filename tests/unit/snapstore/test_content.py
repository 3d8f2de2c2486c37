"""The content of damaged snapshots: one class per reason, whatever the compression and wherever the byte is."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupagent.codecs import CODECS
from backupagent.errors import (
    BackupAgentError,
    ChecksumMismatch,
    IntegrityError,
    MalformedContent,
    NameMismatch,
    StoreUnavailable,
    TruncatedObject,
)
from backupagent.model.manifest import FORMAT, Manifest
from backupagent.model.snapshot import Snapshot, StoredSnapshot
from backupagent.snapstore import SnapshotProof
from backupagent.snapstore.content import ContentReader, drain, read_events

GOLDEN = Path(__file__).parents[2] / "golden"
BUCKETS = ["none", "gzip", "zlib-final", "lzw-final"]
CONTENT = b"[" + bytes(1000) + b"}]"


def golden(bucket: str, kind: str) -> tuple[StoredSnapshot, bytes]:
    path = min((GOLDEN / bucket / "v2").glob(f"{kind}-*"))
    data = path.read_bytes()
    return StoredSnapshot(Snapshot.parse(path.name), f"v2/{path.name}", len(data), ""), data


def pieces(data: bytes, size: int = 100) -> Iterator[memoryview]:
    return (memoryview(data)[start : start + size] for start in range(0, len(data), size))


def read(stored: StoredSnapshot, data: bytes, manifest: Manifest | None = None) -> None:
    if stored.snapshot.is_full:
        drain(ContentReader(stored, manifest).pieces(pieces(data)))
    else:
        drain(read_events(stored, pieces(data), manifest))


def prove(stored: StoredSnapshot, data: bytes, manifest: Manifest | None = None) -> SnapshotProof:
    proof = SnapshotProof(stored, manifest)
    for piece in pieces(data):
        proof.update(piece)
    proof.finish()
    return proof


def manifest_of(stored: StoredSnapshot, data: bytes) -> Manifest:
    sha256 = hashlib.sha256(data).hexdigest()
    return Manifest(format=FORMAT, name=stored.name, kind="Full", stored_bytes=len(data), stored_sha256=sha256)


def outcome(stored: StoredSnapshot, data: bytes, manifest: Manifest | None = None) -> type[BackupAgentError] | None:
    try:
        read(stored, data, manifest)
    except IntegrityError as error:
        return type(error) if error.key == stored.key else None
    return None


@pytest.mark.parametrize("kind", ["Full", "Incr"])
@pytest.mark.parametrize("bucket", BUCKETS)
def test_every_flipped_bit_is_an_integrity_error_or_changes_nothing(bucket: str, kind: str) -> None:
    stored, data = golden(bucket, kind)
    expected = content(stored, data)
    for offset in range(0, len(data), max(1, len(data) // 400)):
        changed = bytearray(data)
        changed[offset] ^= 1 << offset % 8
        # A flag of a gzip header, or a distance to the same bytes: then the content is the same.
        if outcome(stored, bytes(changed)) is None:
            assert content(stored, bytes(changed)) == expected, offset


@pytest.mark.parametrize("kind", ["Full", "Incr"])
@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_manifest_makes_every_flipped_bit_a_mismatch(bucket: str, kind: str) -> None:
    stored, data = golden(bucket, kind)
    manifest = manifest_of(stored, data)
    read(stored, data, manifest)
    assert prove(stored, data, manifest).checked
    for offset in range(0, len(data), max(1, len(data) // 100)):
        changed = bytearray(data)
        changed[offset] ^= 1 << offset % 8
        assert outcome(stored, bytes(changed), manifest) is ChecksumMismatch
        with pytest.raises(ChecksumMismatch, match="its manifest says"):
            prove(stored, bytes(changed), manifest)


@pytest.mark.parametrize("kind", ["Full", "Incr"])
@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_cut_at_any_place_is_a_truncated_object(bucket: str, kind: str) -> None:
    stored, data = golden(bucket, kind)
    for size in range(0, len(data) - 33, max(1, len(data) // 300)):
        # What is cut to sectors and 32 bytes more looks like a whole db with another digest.
        ambiguous = bucket == "none" and stored.snapshot.is_full and size % 512 == 32
        assert outcome(stored, data[:size]) is (ChecksumMismatch if ambiguous else TruncatedObject), size


def test_sizes_that_a_manifest_knows() -> None:
    stored, data = golden("gzip", "Full")
    for size, error in ((len(data) + 1, TruncatedObject), (len(data) - 1, ChecksumMismatch)):
        manifest = Manifest(format=FORMAT, name=stored.name, kind="Full", stored_bytes=size)
        with pytest.raises(error, match=f"it has {len(data)} bytes, its manifest says {size}"):
            read(stored, data, manifest)
        with pytest.raises(error, match="its manifest says"):
            prove(stored, data, manifest)


def test_a_failure_of_the_reading_is_not_blamed_on_the_object() -> None:
    stored, data = golden("gzip", "Full")

    def failing(error: BackupAgentError) -> Iterator[memoryview]:
        yield memoryview(data)[:100]
        raise error

    for error in (TruncatedObject("planned", key="k"), StoreUnavailable("planned", op="read")):
        with pytest.raises(type(error), match="planned"):
            drain(ContentReader(stored, manifest_of(stored, data)).pieces(failing(error)))


def content(stored: StoredSnapshot, data: bytes) -> bytes:
    return b"".join(bytes(piece) for piece in ContentReader(stored).pieces(pieces(data)))


# ---- deltas


def delta(content: bytes, name: str = "Incr-00000006-00000007-1") -> tuple[StoredSnapshot, bytes]:
    data = content + hashlib.sha256(content).digest()
    return StoredSnapshot(Snapshot.parse(name), f"v2/{name}", len(data), ""), data


def test_a_delta_without_events_is_not_what_its_name_says() -> None:
    with pytest.raises(NameMismatch, match="holds no event, its name says 7"):
        read(*delta(b"[]"))


@pytest.mark.parametrize("text", [b"{}", b"[1]", b'[{"etcdEvent":{"kv":{"key":"\xff"}}}]', b"[" * 100_000])
def test_a_delta_with_a_right_digest_that_is_no_delta(text: bytes) -> None:
    with pytest.raises(MalformedContent, match="not the JSON of a delta"):
        read(*delta(text))


# ---- the proof beside a copy


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_proof_gives_all_digests(bucket: str) -> None:
    stored, data = golden(bucket, "Full")
    proof = prove(stored, data)
    assert proof.stored_sha256 == hashlib.sha256(data).hexdigest()
    if bucket == "lzw-final":
        assert (proof.checked, proof.content) == (False, None)
        return
    assert proof.checked
    assert proof.content is not None
    assert proof.content.sha256 == hashlib.sha256(content(stored, data)).hexdigest()


def test_a_proof_that_only_hashes() -> None:
    stored, data = golden("none", "Full")
    proof = SnapshotProof(stored, None, trailer=False)
    proof.update(memoryview(data[:-1]))
    proof.finish()
    assert (proof.checked, proof.content) == (False, None)
    assert proof.stored_sha256 == hashlib.sha256(data[:-1]).hexdigest()


@pytest.mark.parametrize("suffix", [codec.suffix for codec in CODECS.values()])
def test_an_empty_object_is_truncated_whatever_reads_it(suffix: str) -> None:
    name = f"Full-00000000-00000006-1{suffix}"
    with pytest.raises(TruncatedObject, match="it is empty"):
        prove(StoredSnapshot(Snapshot.parse(name), f"v2/{name}", 0, ""), b"")


def test_an_unknown_suffix_needs_a_manifest() -> None:
    name = "Full-00000000-00000006-1.br"
    stored = StoredSnapshot(Snapshot.parse(name), f"v2/{name}", len(CONTENT), "")
    with pytest.raises(MalformedContent, match=r"unsupported compression suffix '\.br'"):
        prove(stored, CONTENT)
    assert prove(stored, CONTENT, manifest_of(stored, CONTENT)).checked
