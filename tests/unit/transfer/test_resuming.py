"""The next run goes on from the parts that the target holds, and from nothing else."""

import random
from dataclasses import replace

import pytest
from transfer_fakes import JOURNAL, Digest, HookedStore, content, copy_item, journal_of, transfer, unavailable

from backupagent.clock import FakeClock
from backupagent.errors import AccessDenied, StoreUnavailable, TruncatedObject
from backupagent.stores.base import NO_METADATA, Buffer, ObjectInfo, PartTag, Upload
from backupagent.stores.retrying import Pulse, RetryingStore
from backupagent.testing.faulty import Fault, FaultyStore
from backupagent.transfer.copying import copy_objects
from backupagent.transfer.items import Copied, CopyItem
from backupagent.transfer.target import ALIVE_EVERY_S, PartedObject, PartTarget

DATA = content(23)
KEY = "copy/0"


def stores() -> tuple[HookedStore, HookedStore]:
    source = HookedStore()
    source.put("0", DATA)
    return source, HookedStore()


def begin_and_die(target: HookedStore, parts: dict[int, bytes], part_size: int = 4, key: str = KEY) -> Upload:
    """Leave what a run leaves that was killed after it had uploaded these parts."""
    upload = target.begin_upload(key, part_size=part_size)
    journal_of(target).remember("name-0", upload, now_s=0)
    for number, data in parts.items():
        target.upload_part(upload, number, data)
    target.parts.clear()
    return upload


def parts_of(data: bytes, size: int = 4) -> dict[int, bytes]:
    return {number: data[start : start + size] for number, start in enumerate(range(0, len(data), size), start=1)}


def copy_again(source: HookedStore, target: HookedStore, item: CopyItem | None = None, part_size: int = 4) -> Copied:
    """Copy, and check that the result is the same as if nothing had happened."""
    item = item or copy_item(source, "0")
    how = transfer(part_size=part_size)
    outcome = copy_objects(source, target, [item], journal_of(target), how)
    (copied,) = outcome.copied
    assert target.get(KEY) == DATA
    assert isinstance(item.inspector, Digest)
    assert item.inspector.saw(DATA)
    assert target.names(JOURNAL) == []
    assert how.progress.view().done == len(DATA)
    return copied


def test_parts_that_the_target_holds_are_not_uploaded_again() -> None:
    source, target = stores()
    parts = parts_of(DATA)
    begin_and_die(target, {number: parts[number] for number in (1, 3, 6)})
    copied = copy_again(source, target)
    assert sorted(target.parts) == [2, 4, 5]
    assert copied.reread == 4 + 4 + 3
    assert target.open_uploads() == []


def test_an_upload_that_is_taken_up_gives_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = stores()
    parts = parts_of(DATA)
    begin_and_die(target, {1: parts[1]})
    written: list[str] = []
    put = target.put

    def listen(key: str, data: Buffer, **given) -> ObjectInfo:
        written.append(key)
        return put(key, data, **given)

    monkeypatch.setattr(target, "put", listen)
    copy_again(source, target)
    assert written == [f"{JOURNAL}name-0.json"]


def test_an_upload_that_goes_on_for_hours_gives_signs_of_life() -> None:
    target, clock = HookedStore(), FakeClock()
    journal = journal_of(target)
    upload = PartTarget(target, PartedObject(KEY, 4, "name-0"), journal, clock)
    signs = []
    for number in range(1, 7):
        upload.write(number, memoryview(b"1234"))
        (file,) = journal.files()
        assert file.entry is not None
        signs.append(file.entry.began_s - FakeClock().now().timestamp())
        clock.sleep(ALIVE_EVERY_S / 2)
    assert signs == [0, 0, ALIVE_EVERY_S, ALIVE_EVERY_S, 2 * ALIVE_EVERY_S, 2 * ALIVE_EVERY_S]
    upload.complete()
    assert journal.files() == []


def test_when_all_parts_are_held_none_is_uploaded() -> None:
    source, target = stores()
    begin_and_die(target, parts_of(DATA))
    assert copy_again(source, target).reread == len(DATA)
    assert target.parts == []


def test_a_held_part_with_other_bytes_or_another_size_is_uploaded_again() -> None:
    source, target = stores()
    parts = parts_of(DATA)
    begin_and_die(target, {1: b"evil", 2: parts[2][:3], 3: parts[3]})
    assert copy_again(source, target).reread == 4
    assert sorted(target.parts) == [1, 2, 4, 5, 6]


def test_a_store_that_tells_no_crc32_gets_every_part_again() -> None:
    class Silent(HookedStore):
        def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
            tag = super().upload_part(upload, number, data)
            return PartTag(tag.number, tag.size, tag.etag, None)

        def list_parts(self, upload: Upload) -> list[PartTag]:
            return [PartTag(tag.number, tag.size, tag.etag, None) for tag in super().list_parts(upload)]

    source, _target = stores()
    target = Silent()
    begin_and_die(target, parts_of(DATA))
    assert copy_again(source, target).reread == 0
    assert sorted(target.parts) == [1, 2, 3, 4, 5, 6]


def test_an_upload_that_is_gone_is_begun_anew() -> None:
    source, target = stores()
    target.abort_upload(begin_and_die(target, parts_of(DATA)))
    assert copy_again(source, target).reread == 0


def test_an_upload_with_parts_of_another_size_is_thrown_away() -> None:
    source, target = stores()
    begin_and_die(target, parts_of(DATA, 5), part_size=5)
    assert copy_again(source, target).reread == 0
    assert target.open_uploads() == []


def test_an_upload_of_another_key_is_left_alone() -> None:
    """An entry comes from a bucket: it must not make us throw away what somebody else uploads."""
    source, target = stores()
    begin_and_die(target, parts_of(DATA), key="copy/other")
    assert copy_again(source, target).reread == 0
    assert target.open_uploads() == ["copy/other"]


@pytest.mark.parametrize("entry", [b"", b"nonsense", b"{}", b'{"key": "\xff"}', b"[" * 60_000, b"[" * 70_000])
def test_an_entry_that_makes_no_sense_is_no_obstacle(entry: bytes) -> None:
    source, target = stores()
    target.put(f"{JOURNAL}name-0.json", entry)
    assert copy_again(source, target).reread == 0


def about_to_begin(target: HookedStore) -> None:
    """Leave what a run leaves that was killed before it could remember the name of its upload."""
    journal_of(target).remember("name-0", Upload(KEY, "", 4), now_s=0)


def test_a_kill_between_begin_and_journal_leaves_nothing_behind_after_the_next_run() -> None:
    source, target = stores()
    about_to_begin(target)
    target.begin_upload(KEY, part_size=4)
    assert copy_again(source, target).reread == 0
    assert target.open_uploads() == []


def test_uploads_of_others_are_left_alone_when_the_name_of_ours_got_lost() -> None:
    source, target = stores()
    about_to_begin(target)
    remembered = target.begin_upload(KEY, part_size=4)
    journal_of(target).remember("others", remembered, now_s=0)
    longer = target.begin_upload(f"{KEY}0", part_size=4)
    target.begin_upload(KEY, part_size=4)
    copy_objects(source, target, [copy_item(source, "0")], journal_of(target), transfer())
    assert list(target.list_uploads("")) == [remembered, longer]


def test_where_uploads_may_not_be_listed_the_copy_goes_on() -> None:
    source, inner = stores()
    about_to_begin(inner)
    inner.begin_upload(KEY, part_size=4)
    target = FaultyStore(inner, Fault("list_uploads", error=AccessDenied("planned", op="list uploads")))
    copy_objects(source, target, [copy_item(source, "0")], journal_of(inner), transfer())
    assert inner.get(KEY) == DATA
    assert inner.open_uploads() == [KEY]
    target.assert_all_hit()


def test_a_bad_object_whose_upload_has_no_name_yet_leaves_nothing() -> None:
    source, target = stores()
    about_to_begin(target)
    target.begin_upload(KEY, part_size=4)
    bad = FaultyStore(source, Fault("read_into", error=TruncatedObject("planned", key="0")))
    outcome = copy_objects(bad, target, [copy_item(source, "0")], journal_of(target), transfer(workers=1))
    assert len(outcome.failed) == 1
    assert (target.open_uploads(), target.names()) == ([], [])


def test_an_upload_that_may_not_be_begun_leaves_no_entry() -> None:
    source, inner = stores()
    target = FaultyStore(inner, Fault("begin_upload", error=AccessDenied("planned", op="begin upload")))
    with pytest.raises(AccessDenied):
        copy_objects(source, target, [copy_item(source, "0")], journal_of(target), transfer())
    assert (inner.names(), inner.open_uploads()) == ([], [])


def test_an_upload_that_may_have_begun_is_thrown_away_by_the_next_run() -> None:
    source, inner = stores()
    target = FaultyStore(inner, Fault("begin_upload", lost_answer=unavailable("begin")))
    with pytest.raises(StoreUnavailable):
        copy_objects(source, target, [copy_item(source, "0")], journal_of(target), transfer())
    assert inner.open_uploads() == [KEY]
    copy_again(source, inner)
    assert inner.open_uploads() == []


def test_a_begin_that_was_made_twice_leaves_one_upload() -> None:
    """The first answer got lost; only the number of repetitions tells."""
    source, inner = stores()
    lost = Fault("begin_upload", lost_answer=unavailable("begin"))
    pulse = Pulse()
    target = RetryingStore(FaultyStore(inner, lost), clock=FakeClock(), rng=random.Random(1), pulse=pulse)
    begun = []
    inner.on_part = lambda _number: begun.append(inner.open_uploads())
    how = replace(transfer(), trouble=lambda: pulse.troubles)
    copy_objects(source, target, [copy_item(source, "0")], journal_of(inner), how)
    assert lost.hits == 1
    assert begun == [[KEY]] * 6
    assert (inner.names(), inner.open_uploads()) == ([KEY], [])


def test_an_object_that_is_small_now_needs_no_upload() -> None:
    source, target = stores()
    begin_and_die(target, {})
    item = copy_item(source, "0")
    copy_objects(source, target, [item], journal_of(target), transfer(part_size=100))
    assert target.get(KEY) == DATA


def test_the_upload_is_remembered_before_its_first_part_and_forgotten_after_it_is_complete() -> None:
    source, target = stores()
    calls: list[tuple[str, str]] = []

    class Store(FaultyStore):
        def begin_upload(self, key: str, *, part_size: int, metadata=NO_METADATA, copied=False) -> Upload:
            calls.append(("begin", key))
            return super().begin_upload(key, part_size=part_size, metadata=metadata, copied=copied)

        def put(self, key, data, *, if_absent=False, metadata=NO_METADATA):
            calls.append(("put", key))
            return super().put(key, data, if_absent=if_absent, metadata=metadata)

        def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
            calls.append(("part", upload.key))
            return super().upload_part(upload, number, data)

        def complete_upload(self, upload, parts, *, if_absent=False):
            calls.append(("complete", upload.key))
            return super().complete_upload(upload, parts, if_absent=if_absent)

        def delete(self, key: str) -> None:
            calls.append(("delete", key))
            super().delete(key)

    store = Store(target)
    copy_objects(source, store, [copy_item(source, "0")], journal_of(store), transfer())
    entry = f"{JOURNAL}name-0.json"
    assert calls == [
        ("put", entry),
        ("begin", KEY),
        ("put", entry),
        *[("part", KEY)] * 6,
        ("complete", KEY),
        ("delete", entry),
    ]


@pytest.mark.parametrize("nth", range(1, 7))
def test_wherever_an_upload_fails_the_next_run_uploads_only_what_is_missing(nth: int) -> None:
    source, inner = stores()
    target = FaultyStore(inner, Fault("upload_part", nth=nth, error=unavailable("part")))
    with pytest.raises(StoreUnavailable):
        copy_objects(source, target, [copy_item(source, "0")], journal_of(target), transfer(workers=1))
    target.assert_all_hit()
    done = list(inner.parts)
    assert done == list(range(1, nth))
    copied = copy_again(source, inner)
    assert sorted(inner.parts) == [1, 2, 3, 4, 5, 6]
    assert copied.reread == 4 * (nth - 1)


def test_an_answer_to_complete_that_got_lost_makes_the_next_run_begin_anew() -> None:
    source, inner = stores()
    target = FaultyStore(inner, Fault("complete_upload", lost_answer=unavailable("complete")))
    with pytest.raises(StoreUnavailable):
        copy_objects(source, target, [copy_item(source, "0")], journal_of(target), transfer())
    assert inner.get(KEY) == DATA
    copy_again(source, inner)
