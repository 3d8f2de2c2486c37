"""What every ObjectStore must do that copies by itself; those that do not must say so.

Not proven by the emulators: fake-gcs-server rewrites in one request, whatever the size, and ignores the generation;
Azurite compares no MD5 and does not look at the signature of a URL of its own. What is asked for is tested in
``tests/unit/stores/test_copy_wire.py``. MinIO lets root read everything: see ``test_s3_on_minio.py``.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from store_access import content, keys, part_size, read
from stores import PARAMS, STORES, UNPROVEN

from backupagent.errors import ObjectChanged, ObjectNotFound, StoreError
from backupagent.stores.base import CopySource, ObjectInfo, ObjectStore, Upload

COPYING = [param for param in PARAMS if param.values[0] != "local"]
WITH_RANGES = [param for param in COPYING if not str(param.values[0]).startswith("fake-gcs")]


@pytest.fixture(params=COPYING)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[ObjectStore, ObjectStore]]:
    """Two empty stores of one service."""
    unproven = UNPROVEN.get((request.param, request.node.originalname))
    if unproven:
        pytest.skip(unproven)
    with STORES[request.param](request) as source, STORES[request.param](request) as target:
        yield source, target


REPLACED = (ObjectChanged, ObjectNotFound)
"""Where a bucket counts versions, the one that was named is gone."""

with_ranges = pytest.mark.parametrize("pair", WITH_RANGES, indirect=True)


def put_in_parts(store: ObjectStore, key: str, data: bytes) -> str:
    upload = store.begin_upload(key, part_size=part_size(store))
    pieces = [data[at : at + upload.part_size] for at in range(0, len(data), upload.part_size)]
    return store.complete_upload(
        upload, [store.upload_part(upload, number, piece) for number, piece in enumerate(pieces, 1)]
    ).etag


def copy_parts(target: ObjectStore, source: CopySource, key: str) -> Upload:
    upload = target.begin_upload(key, part_size=part_size(target), copied=True)
    for number, offset in reversed(list(enumerate(range(0, source.info.size, upload.part_size), 1))):
        size = min(upload.part_size, source.info.size - offset)
        tag = target.copy_part(upload, number, source, offset=offset, size=size)
        assert (tag.number, tag.size) == (number, size)
    return upload


def test_two_stores_of_one_service_know_it(pair: tuple[ObjectStore, ObjectStore]) -> None:
    one, other = (store.features.copies for store in pair)
    assert one is not None
    assert one == other
    assert 0 < one.smallest <= one.whole


@pytest.mark.parametrize("key", ["v2/a", "v2/ä b+%2F?#&=.gz"])
def test_a_whole_object(pair: tuple[ObjectStore, ObjectStore], key: str) -> None:
    source, target = pair
    data = content(300_000)
    etag = source.put(key, data, metadata={"backupagent": "of the source"}).etag
    named = source.copy_source(key, etag=etag)
    assert (named.info.key, named.info.size, named.info.etag) == (key, len(data), etag)
    assert named.info.metadata == {"backupagent": "of the source"}
    info = target.copy_object(named, f"copy/{key}")
    there = target.stat(f"copy/{key}")
    assert (info.key, info.size, info.etag) == (there.key, there.size, there.etag)
    assert "backupagent" not in there.metadata
    assert read(target, f"copy/{key}", len(data)) == data
    common = info.digests.keys() & named.info.digests.keys()
    assert common
    assert all(info.digests[name] == named.info.digests[name] for name in common)


def test_within_one_bucket_and_over_an_old_object(pair: tuple[ObjectStore, ObjectStore]) -> None:
    store, _ = pair
    store.put("a", b"new")
    store.put("b", b"older and longer")
    store.copy_object(store.copy_source("a"), "b")
    assert (read(store, "b", 3), store.stat("b").size) == (b"new", 3)


@with_ranges
def test_in_parts_of_any_order(pair: tuple[ObjectStore, ObjectStore]) -> None:
    source, target = pair
    data = content(2 * part_size(source) + 1000)
    named = source.copy_source("v2/a b", etag=put_in_parts(source, "v2/a b", data))
    upload = copy_parts(target, named, "v2/c d")
    assert keys(target) == []
    tags = target.list_parts(upload)
    assert [tag.size for tag in tags] == [part_size(target)] * 2 + [1000]
    info = target.complete_upload(upload, tags)
    assert (info.size, read(target, "v2/c d", len(data))) == (len(data), data)
    common = info.digests.keys() & named.info.digests.keys()
    assert all(info.digests[name] == named.info.digests[name] for name in common)


@with_ranges
def test_an_upload_goes_on_from_remembered_fields(pair: tuple[ObjectStore, ObjectStore]) -> None:
    source, target = pair
    data = content(part_size(source) + 7)
    source.put("a", data)
    named = source.copy_source("a")
    upload = target.begin_upload("b", part_size=part_size(target), copied=True)
    first = target.copy_part(upload, 1, named, offset=0, size=part_size(target))
    remembered = Upload("b", upload.id, upload.part_size, copied=True)
    assert list(target.list_parts(remembered)) == [first]
    target.copy_part(remembered, 2, named, offset=part_size(target), size=7)
    target.complete_upload(remembered, target.list_parts(remembered))
    assert read(target, "b", len(data)) == data


@with_ranges
def test_a_part_of_an_upload_that_never_was(pair: tuple[ObjectStore, ObjectStore]) -> None:
    source, target = pair
    source.put("a", content(part_size(source)))
    with pytest.raises(ObjectNotFound):
        target.copy_part(Upload("b", "0" * 32, part_size(target)), 1, source.copy_source("a"), offset=0, size=1)


def test_a_source_that_was_replaced_is_not_copied(pair: tuple[ObjectStore, ObjectStore]) -> None:
    source, target = pair
    source.put("a", content(5000, seed=1))
    named = source.copy_source("a")
    source.put("a", content(5000, seed=2))
    with pytest.raises(REPLACED):
        target.copy_object(named, "b")
    assert keys(target) == []


@with_ranges
def test_a_source_that_was_replaced_gives_no_part(pair: tuple[ObjectStore, ObjectStore]) -> None:
    source, target = pair
    source.put("a", content(part_size(source)))
    named = source.copy_source("a")
    source.put("a", content(part_size(source), seed=2))
    upload = target.begin_upload("b", part_size=part_size(target), copied=True)
    with pytest.raises(REPLACED):
        target.copy_part(upload, 1, named, offset=0, size=part_size(target))


def test_an_object_is_named_as_it_was_listed_or_not_at_all(pair: tuple[ObjectStore, ObjectStore]) -> None:
    source, _ = pair
    old = source.put("a", b"one").etag
    source.put("a", b"two")
    with pytest.raises(REPLACED):
        source.copy_source("a", etag=old)
    with pytest.raises(ObjectNotFound):
        source.copy_source("nothing")


def test_a_source_that_is_gone(pair: tuple[ObjectStore, ObjectStore]) -> None:
    source, target = pair
    source.put("a", b"x")
    named = source.copy_source("a")
    source.delete("a")
    with pytest.raises(StoreError) as raised:
        target.copy_object(named, "b")
    assert not raised.value.retryable
    assert keys(target) == []


def test_a_source_of_another_place_is_refused_for_good(pair: tuple[ObjectStore, ObjectStore]) -> None:
    source, target = pair
    source.put("a", b"x")
    named = source.copy_source("a")
    away = replace(named, container="not-there", url=named.url and (lambda: f"{named.url()}x".replace("/a?", "/z?")))
    with pytest.raises(StoreError) as raised:
        target.copy_object(away, "b")
    assert not raised.value.retryable
    assert keys(target) == []


def test_a_store_that_copies_nothing_says_so(request: pytest.FixtureRequest) -> None:
    source = CopySource("c", ObjectInfo("a", 1, "1", 0.0))
    with STORES["local"](request) as store:
        assert store.features.copies is None
        upload = store.begin_upload("b", part_size=1)
        for call in (
            lambda: store.copy_source("a"),
            lambda: store.copy_object(source, "b"),
            lambda: store.copy_part(upload, 1, source, offset=0, size=1),
        ):
            with pytest.raises(StoreError, match="copies nothing by itself") as raised:
                call()
            assert not raised.value.retryable
