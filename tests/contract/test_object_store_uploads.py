"""What every ObjectStore must do with objects that arrive in parts."""

import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from store_access import begin, content, keys, part_size, read

from backupagent.errors import ConfigError, ObjectNotFound, StoreError
from backupagent.stores.base import ObjectStore, PartTag, Upload

THREADS = 16


class TestUpload:
    @pytest.mark.parametrize(("parts", "rest"), [(0, 1), (0, None), (1, 0), (1, 1), (2, 1000)])
    def test_round_trip(self, store: ObjectStore, parts: int, rest: int | None) -> None:
        size = part_size(store)
        data = content(parts * size + (size - 1 if rest is None else rest))
        upload = begin(store)
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        tags = [store.upload_part(upload, number, piece) for number, piece in enumerate(pieces, 1)]
        info = store.complete_upload(upload, tags)
        assert (info.key, info.size) == ("big", len(data))
        assert info.etag == store.stat("big").etag
        assert read(store, "big", len(data), etag=info.etag) == data

    def test_nothing_is_visible_before_complete(self, store: ObjectStore) -> None:
        upload = begin(store, "dir/big")
        tag = store.upload_part(upload, 1, b"x")
        assert keys(store) == []
        with pytest.raises(ObjectNotFound):
            store.stat("dir/big")
        store.complete_upload(upload, [tag])
        assert keys(store) == ["dir/big"]

    def test_parts_out_of_order_and_at_once(self, store: ObjectStore) -> None:
        size = part_size(store)
        data = content(3 * size + 7)
        upload = begin(store)

        def send(number: int) -> PartTag:
            return store.upload_part(upload, number, data[(number - 1) * size : number * size])

        if upload.in_order:
            with pytest.raises(StoreError):
                send(2)
            tags = [send(number) for number in (1, 2, 3, 4)]
        else:
            with ThreadPoolExecutor(4) as pool:
                tags = list(pool.map(send, (4, 2, 3, 1)))
        store.complete_upload(upload, sorted(tags, key=lambda tag: tag.number))
        assert read(store, "big", len(data)) == data

    def test_a_part_sent_again_replaces_the_first(self, store: ObjectStore) -> None:
        upload = begin(store)
        old = store.upload_part(upload, 1, b"old and longer")
        if upload.in_order:
            with pytest.raises(StoreError):
                store.upload_part(upload, 1, b"new")
            store.complete_upload(upload, [old])
            assert read(store, "big", store.stat("big").size) == b"old and longer"
            return
        new = store.upload_part(upload, 1, b"new")
        assert [(tag.number, tag.etag) for tag in store.list_parts(upload)] == [(1, new.etag)]
        with pytest.raises(StoreError):
            store.complete_upload(upload, [old])
        store.complete_upload(upload, [new])
        assert read(store, "big", store.stat("big").size) == b"new"

    def test_parts_are_listed_with_their_crc(self, store: ObjectStore) -> None:
        upload = begin(store)
        assert list(store.list_parts(upload)) == []
        pieces = {1: content(part_size(store)), 2: b"tail"}
        sent = [store.upload_part(upload, number, pieces[number]) for number in ((1, 2) if upload.in_order else (2, 1))]
        listed = list(store.list_parts(upload))
        assert listed == sorted(sent, key=lambda tag: tag.number)
        for tag in listed:
            assert tag.size == len(pieces[tag.number])
            assert tag.crc32 == zlib.crc32(pieces[tag.number])

    def test_goes_on_from_remembered_fields(self, store: ObjectStore) -> None:
        upload = begin(store, "dir/big")
        store.upload_part(upload, 1, content(part_size(store)))
        remembered = Upload("dir/big", upload.id, upload.part_size)
        store.upload_part(remembered, 2, b"tail")
        store.complete_upload(remembered, store.list_parts(remembered))
        assert read(store, "dir/big", 4, offset=part_size(store)) == b"tail"

    def test_open_uploads_are_listed_by_prefix(self, store: ObjectStore) -> None:
        uploads = [begin(store, key) for key in ("v2/b", "v2/a", "v20/c", "d")]
        for upload in uploads:
            store.upload_part(upload, 1, b"x")
        assert {(found.key, found.id) for found in store.list_uploads("v2/")} == {
            (upload.key, upload.id) for upload in uploads[:2]
        }
        assert len(store.list_uploads("")) == 4
        assert list(store.list_uploads("../")) == list(store.list_uploads("c")) == []
        assert {found.part_size for found in store.list_uploads("")} <= {0, part_size(store)}

    def test_open_uploads_tell_their_age_and_what_they_hold(self, store: ObjectStore) -> None:
        upload = begin(store)
        store.upload_part(upload, 1, b"12345")
        (found,) = store.list_uploads("")
        assert found.alive_s is not None
        assert abs(found.alive_s - store.put("now", b"").modified_s) < 30
        assert found.held in {5, None}

    def test_two_uploads_of_one_key(self, store: ObjectStore) -> None:
        first, second = begin(store), begin(store)
        assert first.id != second.id
        tag = store.upload_part(first, 1, b"first")
        store.upload_part(second, 1, b"second")
        store.complete_upload(first, [tag])
        assert read(store, "big", 5) == b"first"
        assert [found.id for found in store.list_uploads("big")] == [second.id]

    @pytest.mark.parametrize("end", ["complete", "abort"])
    def test_a_finished_upload_is_gone(self, store: ObjectStore, end: str) -> None:
        upload = begin(store)
        tag = store.upload_part(upload, 1, b"x")
        if end == "complete":
            store.complete_upload(upload, [tag])
        else:
            store.abort_upload(upload)
        for call in (
            lambda: store.upload_part(upload, 1, b"x"),
            lambda: store.list_parts(upload),
            lambda: store.complete_upload(upload, [tag]),
        ):
            with pytest.raises(ObjectNotFound):
                call()
        store.abort_upload(upload)
        assert list(store.list_uploads("")) == []
        assert keys(store) == (["big"] if end == "complete" else [])

    @pytest.mark.parametrize("upload_id", ["", "nope", "../../etc", "0123456789abcdef"])
    def test_an_upload_that_never_was(self, store: ObjectStore, upload_id: str) -> None:
        upload = Upload("big", upload_id, part_size(store))
        with pytest.raises(StoreError):
            store.list_parts(upload)
        with pytest.raises(StoreError):
            store.upload_part(upload, 1, b"x")

    def test_parts_with_a_hole_are_refused(self, store: ObjectStore) -> None:
        upload = begin(store)
        first = store.upload_part(upload, 1, content(part_size(store)))
        third = PartTag(3, 1, "x") if upload.in_order else store.upload_part(upload, 3, b"x")
        for parts in ([], [third], [first, third], [third, first], [first, first]):
            with pytest.raises(StoreError):
                store.complete_upload(upload, parts)
        assert keys(store) == []

    def test_a_short_part_in_the_middle_is_refused(self, store: ObjectStore) -> None:
        upload = begin(store)
        tags = [store.upload_part(upload, 1, b"short")]
        if upload.in_order:
            with pytest.raises(StoreError):
                store.upload_part(upload, 2, b"short")
            return
        tags.append(store.upload_part(upload, 2, b"short"))
        with pytest.raises(StoreError):
            store.complete_upload(upload, tags)
        assert keys(store) == []

    def test_impossible_parts_are_refused(self, store: ObjectStore) -> None:
        upload = begin(store)
        for number, size in ((0, 1), (-1, 1), (store.limits.max_parts + 1, 1), (1, part_size(store) + 1)):
            with pytest.raises(StoreError):
                store.upload_part(upload, number, bytes(size))
        for size in (store.limits.min_part - 1, store.limits.max_part + 1):
            with pytest.raises(ConfigError):
                store.begin_upload("big", part_size=size)

    def test_replaces_an_object_at_once(self, store: ObjectStore) -> None:
        old = store.put("big", b"old")
        upload = begin(store)
        tag = store.upload_part(upload, 1, b"new content")
        assert read(store, "big", 3, etag=old.etag) == b"old"
        store.complete_upload(upload, [tag])
        assert read(store, "big", 11) == b"new content"
