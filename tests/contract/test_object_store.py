"""What every ObjectStore must do. Sizes of parts come from the store's limits."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from store_access import begin, content, keys, part_size, read

from backupagent.errors import ConfigError, ObjectChanged, ObjectExists, ObjectNotFound, TruncatedObject
from backupagent.stores.base import ObjectStore
from backupagent.units import KiB

THREADS = 16

ODD_KEYS = [
    "v2/Full-00000000-00000042-1795400591.gz.final",
    "with space/and  two",
    "percent %41 %2F %",
    "plus+and&question?hash#semi;colon=equals",
    "quotes \"double\" 'single' <tag>",
    "ünïcödé/日本語/💾",
    "line\u2028separator",
    "dots/.hidden/..also/...",
    "tilde~star*bracket[pipe|caret^comma,colon:at@dollar$",
    "/".join("k" * 204 for _ in range(5)),
]

BAD_KEYS = [
    "", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "../a", "a\nb", "a\0b", "a\\b", "\x7f", "\ud800",
    "k" * 1025, "é" * 513,
]  # fmt: skip


class TestPutAndRead:
    @pytest.mark.parametrize("size", [0, 1, 64 * KiB - 1, 64 * KiB, 64 * KiB + 1, 1_000_003])
    def test_round_trip(self, store: ObjectStore, size: int) -> None:
        data = content(size)
        info = store.put("a/b", data)
        assert (info.key, info.size) == ("a/b", size)
        assert read(store, "a/b", size, etag=info.etag) == data

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_takes_any_buffer_and_does_not_keep_it(self, store: ObjectStore, kind: type) -> None:
        data = bytearray(content(1000))
        given = data if kind is bytearray else kind(data)
        store.put("a", given)
        data[:] = bytes(1000)
        assert read(store, "a", 1000) == content(1000)

    @pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 1000), (1, 998), (999, 1), (500, 0), (1000, 0)])
    def test_reads_a_range(self, store: ObjectStore, offset: int, size: int) -> None:
        store.put("a", content(1000))
        assert read(store, "a", size, offset=offset) == content(1000)[offset : offset + size]

    @pytest.mark.parametrize(("offset", "size"), [(0, 1001), (999, 2), (1000, 1), (5000, 10), (1001, 0)])
    def test_a_range_past_the_end_is_truncated(self, store: ObjectStore, offset: int, size: int) -> None:
        store.put("a", content(1000))
        with pytest.raises(TruncatedObject):
            read(store, "a", size, offset=offset)

    def test_reads_into_a_slice_and_nowhere_else(self, store: ObjectStore) -> None:
        store.put("a", b"xyz")
        buffer = bytearray(b"-" * 9)
        store.read_into("a", memoryview(buffer)[3:6])
        assert buffer == b"---xyz---"

    def test_an_old_etag_is_refused(self, store: ObjectStore) -> None:
        old = store.put("a", b"one").etag
        new = store.put("a", b"two").etag
        assert old != new
        with pytest.raises(ObjectChanged):
            read(store, "a", 3, etag=old)
        with pytest.raises(ObjectChanged):
            read(store, "a", 0, etag=old)
        assert read(store, "a", 3, etag=new) == b"two"

    def test_the_same_etag_from_put_stat_and_list(self, store: ObjectStore) -> None:
        put = store.put("a", b"one")
        (listed,) = store.list_objects("")
        assert put.etag
        assert {store.stat("a").etag, listed.etag} == {put.etag}

    def test_stat_says_size_and_time(self, store: ObjectStore) -> None:
        put = store.put("a", b"four")
        info = store.stat("a")
        assert (info.key, info.size) == ("a", 4)
        assert abs(info.modified_s - put.modified_s) < 120, "both are the store's clock"

    def test_metadata_comes_back_where_there_is_any(self, store: ObjectStore) -> None:
        metadata = {"backupagent": '{"kind":"Incr","leases":{"7":60}} ~!@#$%^&*()+', "empty": ""}
        store.put("a", b"x", metadata=metadata)
        upload = store.begin_upload("b", part_size=part_size(store), metadata=metadata)
        store.complete_upload(upload, [store.upload_part(upload, 1, b"y")])
        expected = metadata if store.features.metadata else {}
        assert store.stat("a").metadata == expected
        assert store.stat("b").metadata == expected
        told = expected if store.features.reads_tell_metadata else {}
        assert store.read_into("a", memoryview(bytearray(1))) == told
        assert store.read_into("a", memoryview(bytearray(0))) == {}

    @pytest.mark.parametrize(
        "metadata", [{"Upper": "x"}, {"a-b": "x"}, {"a": "é"}, {"a": "x\n"}, {"a": " x"}, {"a": "x" * 2048}]
    )
    def test_metadata_that_would_not_survive_is_refused(self, store: ObjectStore, metadata: dict[str, str]) -> None:
        if not store.features.metadata:
            store.put("a", b"x", metadata=metadata)
            return
        with pytest.raises(ConfigError):
            store.put("a", b"x", metadata=metadata)
        assert keys(store) == []

    @pytest.mark.parametrize("key", ODD_KEYS, ids=range(len(ODD_KEYS)))
    def test_odd_keys(self, store: ObjectStore, key: str) -> None:
        store.put(key, b"x")
        assert store.stat(key).key == key
        assert read(store, key, 1) == b"x"
        assert keys(store, key[:3]) == [key]
        store.delete(key)
        assert keys(store) == []

    @pytest.mark.parametrize("key", BAD_KEYS, ids=range(len(BAD_KEYS)))
    def test_bad_keys_are_refused_everywhere(self, store: ObjectStore, key: str) -> None:
        calls = [
            lambda: store.put(key, b"x"),
            lambda: store.stat(key),
            lambda: read(store, key, 1),
            lambda: store.delete(key),
            lambda: begin(store, key),
        ]
        for call in calls:
            with pytest.raises(ConfigError):
                call()
        assert keys(store) == []


class TestMissing:
    def test_reading_is_an_error(self, store: ObjectStore) -> None:
        store.put("there/x", b"x")
        for key in ("gone", "there", "there/y", "there/x/y"):
            with pytest.raises(ObjectNotFound):
                store.stat(key)
            with pytest.raises(ObjectNotFound):
                read(store, key, 1)

    def test_deleting_is_fine(self, store: ObjectStore) -> None:
        store.put("there/x", b"x")
        for key in ("gone", "there", "there/y", "there/x/y"):
            store.delete(key)
        assert keys(store) == ["there/x"]

    def test_delete_removes_one(self, store: ObjectStore) -> None:
        store.put("a", b"x")
        store.put("ab", b"x")
        store.delete("a")
        assert keys(store) == ["ab"]


class TestList:
    def test_an_empty_store_gives_nothing(self, store: ObjectStore) -> None:
        assert keys(store) == []
        assert keys(store, "v2/") == []
        assert list(store.list_uploads("")) == []

    def test_byte_order_and_prefix_edges(self, store: ObjectStore) -> None:
        names = ["a/b", "a-b", "a.b", "ab", "a/b-c", "a/bb/c", "B", "a0", "Z/z", "~", "é", "\uff41", "💾", "\ue000"]
        for name in names:
            store.put(name, b"x")
        assert keys(store) == sorted(names, key=str.encode)
        assert keys(store, "a/") == ["a/b", "a/b-c", "a/bb/c"]
        assert keys(store, "a/bb") == ["a/bb/c"]
        assert keys(store, "a") == sorted((name for name in names if name.startswith("a")), key=str.encode)
        for prefix in ("c", "a/b/", "/", "../", "a//", "a/../", "é/"):
            assert keys(store, prefix) == []

    def test_more_than_a_page(self, store: ObjectStore) -> None:
        names = sorted(f"v2/{number * 7919 % 1103:04d}" for number in range(1103))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: store.put(name, b""), names))
        assert keys(store, "v2/") == names


class TestCreateOnly:
    def test_refuses_to_replace(self, store: ObjectStore) -> None:
        store.put("a", b"one", if_absent=True)
        with pytest.raises(ObjectExists):
            store.put("a", b"two", if_absent=True)
        assert read(store, "a", 3) == b"one"

    def test_an_upload_refuses_to_replace(self, store: ObjectStore) -> None:
        upload = begin(store, "a")
        tag = store.upload_part(upload, 1, b"two")
        store.put("a", b"one")
        with pytest.raises(ObjectExists):
            store.complete_upload(upload, [tag], if_absent=True)
        assert read(store, "a", 3) == b"one"
        store.abort_upload(upload)
        assert keys(store) == ["a"]
        assert list(store.list_uploads("")) == []

    def test_of_many_writers_one_wins(self, store: ObjectStore) -> None:
        barrier = threading.Barrier(THREADS)

        def write(number: int) -> int | None:
            barrier.wait()
            try:
                store.put("a", bytes([number]) * 1000, if_absent=True)
            except ObjectExists:
                return None
            return number

        with ThreadPoolExecutor(THREADS) as pool:
            winners = [number for number in pool.map(write, range(THREADS)) if number is not None]
        assert len(winners) == 1
        assert read(store, "a", 1000) == bytes(winners) * 1000

    def test_of_many_uploads_one_wins(self, store: ObjectStore) -> None:
        barrier = threading.Barrier(4)

        def write(number: int) -> int | None:
            upload = begin(store, "a")
            tag = store.upload_part(upload, 1, bytes([number]) * 1000)
            barrier.wait()
            try:
                store.complete_upload(upload, [tag], if_absent=True)
            except ObjectExists:
                return None
            return number

        with ThreadPoolExecutor(4) as pool:
            winners = [number for number in pool.map(write, range(4)) if number is not None]
        assert len(winners) == 1
        assert read(store, "a", 1000) == bytes(winners) * 1000


class TestThreads:
    def test_sixteen_at_once(self, store: ObjectStore) -> None:
        def work(number: int) -> None:
            data = content(50_000 + number, seed=number)
            for step in range(5):
                key = f"thread-{number:02d}/{step}"
                etag = store.put(key, data).etag
                assert read(store, key, len(data) - step, offset=step, etag=etag) == data[step:]
                assert keys(store, f"thread-{number:02d}/") == [
                    f"thread-{number:02d}/{past}" for past in range(step + 1)
                ]

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(THREADS)))
        assert len(keys(store)) == 5 * THREADS

    def test_readers_see_the_old_or_the_new_object_whole(self, store: ObjectStore) -> None:
        size = 200_000
        versions = [bytes([number]) * size for number in range(1, 21)]
        store.put("a", versions[0])
        written = threading.Event()

        def overwrite() -> None:
            for version in versions[1:]:
                store.put("a", version)
            written.set()

        def watch(_: int) -> int:
            reads = 0
            while not written.is_set() or not reads:
                seen = read(store, "a", size)
                assert seen in versions, "a mix of two versions"
                reads += 1
            return reads

        with ThreadPoolExecutor(4) as pool:
            writer = pool.submit(overwrite)
            assert all(pool.map(watch, range(3)))
            writer.result()
        assert read(store, "a", size) == versions[-1]

    def test_reads_that_end_early_leave_the_store_usable(self, store: ObjectStore) -> None:
        store.put("a", content(1000))
        for _ in range(100):
            with pytest.raises(TruncatedObject):
                read(store, "a", 2000, offset=500)
        assert read(store, "a", 1000) == content(1000)
