"""A damaged snapshot in a bucket: found by copy, restore and verify, under one class for fulls and deltas.

Every input is a copy of a golden bucket with one object changed. Nothing half-made may be left, and the other
snapshots are copied all the same.
"""

import json
from pathlib import Path

import buckets
import pytest
from buckets import Bucket, Damage, golden
from command import Ended, assert_blamed, backupagent
from place import Place

COMPRESSIONS = tuple(buckets.FOLDERS)
DAMAGES: dict[str, tuple[Damage, str, tuple[str, ...]]] = {
    "flipped-byte": (buckets.flip_byte, "ChecksumMismatch", ("none",)),
    "flipped-deflate": (buckets.flip_byte, "MalformedContent", ("gzip", "zlib")),
    "truncated": (buckets.truncate, "TruncatedObject", COMPRESSIONS),
    "no-trailer": (buckets.drop_trailer, "TrailerMissing", COMPRESSIONS),
    "empty": (buckets.empty, "TruncatedObject", COMPRESSIONS),
}


def cases(*compressions: str) -> pytest.MarkDecorator:
    """Every damage to a full and to a delta of these compressions."""
    rows = [
        pytest.param(compression, kind, damage, reason, id=f"{name}-{compression}-{kind}")
        for name, (damage, reason, possible) in DAMAGES.items()
        for compression in possible
        for kind in ("full", "delta")
        if compression in compressions
    ]
    return pytest.mark.parametrize(("compression", "kind", "damage", "reason"), rows)


def with_manifests(compression: str, place: Place) -> Bucket:
    """Make the source a copy of a golden bucket, which has manifests where the peer's has none."""
    peer = golden(compression, place.root / "peer")
    backupagent("copy", "--source", peer.uri, "--target", place.source.as_uri()).report()
    return Bucket(place.source)


def damaged(bucket: Bucket, kind: str, damage: Damage) -> Path:
    path = bucket.full if kind == "full" else bucket.deltas[2]
    damage(path)
    return path


def assert_others_copied(place: Place, bucket: Bucket, bad: Path) -> None:
    target = Bucket(place.target)
    assert target.objects() == {name: data for name, data in bucket.objects().items() if name != bad.name}
    assert not (target.root / "manifests" / f"{bad.name}.json").exists()
    assert target.unfinished() == []


def assert_found_by_all(place: Place, bucket: Bucket, bad: Path, reason: str) -> Ended:
    """Copy, restore and verify; return what verify said."""
    before = bucket.objects()
    key = f"v2/{bad.name}"
    assert_blamed(place.copy(), reason, key)
    assert_others_copied(place, bucket, bad)
    assert_blamed(place.restore(), reason, key)
    place.assert_nothing_restored()
    verified = place.verify()
    assert_blamed(verified, reason, key)
    assert bucket.objects() == before
    return verified


@cases("none", "gzip", "zlib")
def test_a_damaged_snapshot_is_found(compression: str, kind: str, damage: Damage, reason: str, place: Place) -> None:
    bucket = golden(compression, place.source)
    bad = damaged(bucket, kind, damage)
    verified = assert_found_by_all(place, bucket, bad, reason)
    (chain,) = verified.document["chains"]
    assert (chain["last_revision"], chain["ok"]) == (0 if kind == "full" else 17, False)


@cases("lzw")
def test_a_damaged_lzw_snapshot_is_found_by_whoever_reads_it(
    compression: str, kind: str, damage: Damage, reason: str, place: Place
) -> None:
    """A copy does not decompress LZW without a manifest, and says so; only an empty object needs no decompression."""
    bucket = golden(compression, place.source)
    bad = damaged(bucket, kind, damage)
    key = f"v2/{bad.name}"
    copied = place.copy()
    if damage is buckets.empty:
        assert_blamed(copied, reason, key)
        assert_others_copied(place, bucket, bad)
    else:
        assert copied.report()["trailers_unchecked"] == 6
        assert_blamed(place.verify(place.target), reason, key)
    assert_blamed(place.restore(), reason, key)
    place.assert_nothing_restored()
    assert_blamed(place.verify(), reason, key)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_manifest_tells_a_changed_byte_from_bad_compression(compression: str, place: Place) -> None:
    bucket = with_manifests(compression, place)
    buckets.flip_byte(bucket.full)
    assert_found_by_all(place, bucket, bucket.full, "ChecksumMismatch")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_manifest_tells_that_an_object_is_too_short(compression: str, place: Place) -> None:
    bucket = with_manifests(compression, place)
    bucket.full.write_bytes(bucket.full.read_bytes()[:-32])
    assert_found_by_all(place, bucket, bucket.full, "TruncatedObject")


def test_an_unknown_suffix(place: Place) -> None:
    bucket = golden("gzip", place.source)
    bad = bucket.full.rename(bucket.full.with_suffix(".br"))
    assert_found_by_all(place, bucket, bad, "MalformedContent")
    assert "'.br'" in place.restore().stderr


def test_a_name_that_is_none(place: Place) -> None:
    bucket = golden("gzip", place.source)
    (bucket.root / "v2" / "Full-6-final.gz").write_bytes(b"x")
    verified = place.verify()
    assert_blamed(verified, "BadSnapshotName", "v2/Full-6-final.gz")
    assert verified.document["chains"][0]["last_revision"] == buckets.LAST_REVISION
    assert place.copy().report()["copied"] == 6


def test_a_full_whose_name_promises_more_than_it_holds(place: Place) -> None:
    bucket = golden("none", place.source)
    bad = bucket.full.rename(bucket.full.with_name(bucket.full.name.replace("00000006", "00000008")))
    assert_blamed(place.restore(), "NameMismatch", f"v2/{bad.name}", "revision 6", "says 8")
    place.assert_nothing_restored()


@pytest.mark.parametrize(
    ("lie", "told"),
    [("00000010-00000017", "starts at revision 12, its name says 10"),
     ("00000012-00000018", "ends at revision 17, its name says 18")],
)  # fmt: skip
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_delta_whose_name_lies_about_its_revisions(compression: str, lie: str, told: str, place: Place) -> None:
    bucket = golden(compression, place.source)
    (path,) = bucket.root.glob("v2/*00000012-00000017*")
    bad = path.rename(path.with_name(path.name.replace("00000012-00000017", lie)))
    assert_blamed(place.restore(), "NameMismatch", f"v2/{bad.name}", told)
    place.assert_nothing_restored()
    assert_blamed(place.verify(), "NameMismatch", f"v2/{bad.name}", told)


def test_a_full_that_is_newer_than_the_first_delta_works(place: Place) -> None:
    """As when etcd went on while its full was streamed: the name has the earlier revision."""
    bucket = golden("zlib", place.source, whole=True)
    first, second = sorted(bucket.root.glob("v2/Full-*"))
    second.replace(first)
    newest = place.copy().report()["newest_chain"]
    assert (newest["full"], newest["last_revision"]) == (first.name, 31)
    place.verify(place.target).report()
    place.source = place.target
    report = place.restore("--hash-compact-revision", str(buckets.COMPACT_REVISION)).report()
    assert (report["revision"], report["hash_kv"]) == (31, buckets.source_hash("zlib"))


def test_overlapping_deltas_that_agree_work(place: Place) -> None:
    bucket = golden("none", place.source)
    held = [event for delta in bucket.deltas for event in buckets.events(delta)]
    buckets.write_delta(bucket, (event for event in held if 9 <= buckets.revision(event) <= 14))
    place.copy().report()
    place.verify(place.target).report()
    place.source = place.target
    report = place.restore("--hash-compact-revision", str(buckets.COMPACT_REVISION)).report()
    assert (report["revision"], report["hash_kv"]) == (buckets.LAST_REVISION, buckets.source_hash("none"))
    assert report["deltas"] == 6


def test_overlapping_deltas_that_disagree(place: Place) -> None:
    bucket = golden("none", place.source)
    held = [event for delta in bucket.deltas for event in buckets.events(delta)]
    overlap = [event for event in held if 9 <= buckets.revision(event) <= 14]
    overlap[1]["etcdEvent"]["kv"]["value"] = "b3RoZXI="
    buckets.write_delta(bucket, overlap)
    assert_blamed(place.restore(), "ConflictingDeltas", "v2/Incr-00000009-00000014", "revision 10")
    place.assert_nothing_restored()


def test_a_delta_that_is_missing_in_the_middle(place: Place) -> None:
    bucket = golden("gzip", place.source)
    bucket.deltas[1].unlink()
    after = f"v2/{bucket.deltas[1].name}"
    for ended in (place.copy(), place.restore(), place.verify()):
        assert_blamed(ended, "RevisionGap", after, "revisions 12 to 17 are missing")
    place.assert_nothing_restored()
    assert not place.target.exists()


def test_a_recorded_hash_that_is_not_found_again(place: Place) -> None:
    bucket = with_manifests("none", place)
    for delta in bucket.deltas:
        delta.unlink()
    truth = place.restore().report()
    manifest = json.loads(bucket.manifest.read_text())
    recorded = {"hash_kv_revision": truth["revision"], "compact_revision": truth["compact_revision"]}
    for hash_kv in (truth["hash_kv"], truth["hash_kv"] ^ 1):
        bucket.manifest.write_text(json.dumps(manifest | recorded | {"hash_kv": hash_kv}))
        place.data_dir = place.root / f"{hash_kv}.etcd"
        ended = place.restore()
        if hash_kv == truth["hash_kv"]:
            assert ended.report()["matches_manifest"] is True
    assert_blamed(ended, "NotEqual", f"v2/{bucket.full.name}", str(truth["hash_kv"]), str(truth["hash_kv"] ^ 1))
    place.assert_nothing_restored()
