from backupagent.clock import FakeClock
from backupagent.stores.memory import MemoryStore


def test_takes_the_time_from_the_clock() -> None:
    clock = FakeClock()
    store = MemoryStore("name", clock=clock)
    first = store.put("a", b"").modified_s
    clock.sleep(5)
    upload = store.begin_upload("b", part_size=1)
    tag = store.upload_part(upload, 1, b"x")
    clock.sleep(5)
    assert store.complete_upload(upload, [tag]).modified_s == first + 10
    assert [info.modified_s - first for info in store.list_objects("")] == [0, 10]


def test_the_same_content_written_again_has_another_etag() -> None:
    store = MemoryStore()
    assert store.put("a", b"x").etag != store.put("a", b"x").etag


def test_a_listing_carries_no_metadata() -> None:
    store = MemoryStore()
    store.put("a", b"", metadata={"name": "value"})
    assert [dict(info.metadata) for info in store.list_objects("")] == [{}]
    assert store.stat("a").metadata == {"name": "value"}


def test_a_listing_shows_one_moment() -> None:
    store = MemoryStore()
    for key in ("a", "b", "c"):
        store.put(key, b"")
    listing = store.list_objects("")
    assert next(listing).key == "a"
    store.delete("b")
    store.put("d", b"")
    assert [info.key for info in listing] == ["b", "c"]
