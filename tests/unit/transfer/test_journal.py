"""Open uploads are found again; entries are untrusted; only what nobody works on is thrown away."""

import os
import socket
import subprocess
import sys

import msgspec
import pytest
from transfer_fakes import JOURNAL, HookedStore, journal_of, unavailable

from backupagent.errors import ObjectLocked, ObjectNotFound, StoreUnavailable, TruncatedObject
from backupagent.stores.base import ObjectInfo, Upload
from backupagent.testing.faulty import Fault, FaultyStore
from backupagent.transfer.journal import MAX_ENTRY_SIZE, MAX_PID, UploadJournal

DAY_S = 86_400.0


class KeepingStore(HookedStore):
    """A bucket with retention: what was written stays, and stays as it is."""

    def put(self, key: str, data: bytes, **options: object) -> ObjectInfo:
        if key in self.names():
            raise ObjectLocked("planned", op="put", key=key)
        return super().put(key, data, **options)

    def delete(self, key: str) -> None:
        raise ObjectLocked("planned", op="delete", key=key)


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """Give the id of a process that has ended, and that nobody can have yet: ids are given in turn."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_closing_throws_away_what_is_left_of_an_upload_and_forgets_it() -> None:
    store = HookedStore()
    journal = journal_of(store)
    journal.remember("open", store.begin_upload("key", part_size=4), now_s=1.0)
    journal.remember("nameless", Upload("key", "", 4), now_s=1.0)
    other = store.begin_upload("key", part_size=4)
    for name in ("open", "nameless", "missing"):
        journal.close(name)
    assert (store.names(), list(store.list_uploads(""))) == ([], [other])


def put_entry(store: HookedStore, name: str, **changes: object) -> Upload:
    """Begin an upload and write its entry, as another process would have."""
    upload = store.begin_upload(f"key-{name}", part_size=4)
    entry = {
        "key": upload.key,
        "upload": upload.id,
        "part_size": 4,
        "began_s": 1000.0,
        "host": "elsewhere",
        "pid": 1,
    } | changes
    store.put(f"{JOURNAL}{name}.json", msgspec.json.encode(entry))
    return upload


def clean(store: HookedStore | FaultyStore, age_s: float = 0.0) -> int:
    journal = UploadJournal(store, JOURNAL)
    return journal.abort_abandoned(now_s=1000.0 + age_s, older_than_s=DAY_S, stream_marker="stream-")


@pytest.mark.parametrize("in_order", [False, True])
def test_whether_parts_come_in_order_is_remembered(in_order: bool) -> None:
    journal = journal_of(HookedStore())
    journal.remember("name", Upload("key", "id", 4, in_order=in_order), now_s=1.0)
    assert journal.recall("name").in_order == in_order


def test_where_nothing_can_be_removed_the_first_entry_stays() -> None:
    store = KeepingStore()
    journal = journal_of(store)
    first, second = (store.begin_upload("key", part_size=4) for _ in range(2))
    journal.remember("stream-a", first, now_s=1.0)
    journal.forget("stream-a")
    journal.remember("stream-a", second, now_s=2.0)
    assert journal.recall("stream-a") == first
    super(KeepingStore, store).put(f"{JOURNAL}stream-b.json", b"damaged")
    assert clean(store, 2 * DAY_S) == 1
    assert store.list_uploads("") == [second]


def test_entries_are_read_as_they_lie_there_and_tell_who_lives(dead_pid: int) -> None:
    store = HookedStore()
    host = socket.gethostname()
    mine = put_entry(store, "a-mine", host=host, pid=os.getpid())
    put_entry(store, "b-dead", host=host, pid=dead_pid)
    put_entry(store, "c-elsewhere", host="elsewhere", pid=os.getpid())
    store.put(f"{JOURNAL}d-damaged.json", b"{")
    files = UploadJournal(store, JOURNAL).files()
    assert [file.is_alive for file in files] == [True, False, False, False]
    assert (files[0].upload, files[3].upload, files[3].entry) == (mine, None, None)
    assert files[0].modified_s == store.stat(files[0].key).modified_s


def test_an_entry_that_is_removed_while_all_are_read_is_left_out() -> None:
    faulty = FaultyStore(HookedStore(), Fault("read_into", error=ObjectNotFound("gone", op="read")))
    UploadJournal(faulty, JOURNAL).remember("name", Upload("key", "1", 4), now_s=1.0)
    assert UploadJournal(faulty, JOURNAL).files() == []
    assert len(UploadJournal(faulty, JOURNAL).files()) == 1


def test_what_is_remembered_is_recalled_until_it_is_forgotten() -> None:
    store = HookedStore()
    journal = journal_of(store)
    upload = store.begin_upload("key", part_size=4)
    assert journal.recall("name") is None
    journal.remember("name", upload, now_s=1.0)
    assert journal.recall("name") == upload
    assert journal.recall("other") is None
    journal.forget("name")
    assert journal.recall("name") is None
    journal.forget("name")


def test_an_entry_says_who_works_on_it() -> None:
    store = HookedStore()
    journal_of(store).remember("name", Upload("key", "id", 4), now_s=12.5)
    assert msgspec.json.decode(store.get(f"{JOURNAL}name.json")) == {
        "key": "key",
        "upload": "id",
        "part_size": 4,
        "began_s": 12.5,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }


BAD = [
    {"key": "../up"},
    {"key": ""},
    {"part_size": 0},
    {"part_size": "4"},
    {"pid": 0},
    {"pid": -1},
    {"pid": MAX_PID + 1},
    {"pid": 2**70},
    {"upload": None},
    {"host": "h" * MAX_ENTRY_SIZE},
]


@pytest.mark.parametrize("changes", BAD, ids=lambda changes: f"{changes}"[:30])
def test_an_entry_that_makes_no_sense_is_not_recalled_and_is_removed(changes: dict[str, object]) -> None:
    store = HookedStore()
    put_entry(store, "stream-1", **changes)
    assert journal_of(store).recall("stream-1") is None
    assert clean(store) == 0
    assert store.names() == []


@pytest.mark.parametrize("error", [ObjectNotFound("planned", op="read"), TruncatedObject("planned", key="entry")])
def test_an_entry_that_changes_while_it_is_read_belongs_to_somebody_who_lives(error: Exception) -> None:
    store = HookedStore()
    put_entry(store, "stream-1")
    faulty = FaultyStore(store, Fault("read_into", times=2, error=error))
    assert UploadJournal(faulty, JOURNAL).recall("stream-1") is None
    assert clean(faulty, 2 * DAY_S) == 0
    assert store.open_uploads() == ["key-stream-1"]
    assert store.names() == [f"{JOURNAL}stream-1.json"]
    faulty.assert_all_hit()


def test_a_store_that_fails_is_not_an_entry_that_is_missing() -> None:
    store = HookedStore()
    put_entry(store, "stream-1")
    with pytest.raises(StoreUnavailable):
        UploadJournal(FaultyStore(store, Fault("stat", error=unavailable("stat"))), JOURNAL).recall("stream-1")


def test_a_stream_whose_process_has_ended_is_thrown_away(dead_pid: int) -> None:
    store = HookedStore()
    put_entry(store, "stream-1", host=socket.gethostname(), pid=dead_pid)
    assert clean(store) == 1
    assert store.open_uploads() == []
    assert store.names() == []


def test_a_stream_whose_process_lives_is_left_alone_until_it_is_old() -> None:
    """Process 1 lives wherever this test runs, and may belong to another user."""
    store = HookedStore()
    for pid in (1, os.getpid(), os.getppid()):
        put_entry(store, f"stream-{pid}", host=socket.gethostname(), pid=pid)
    assert clean(store, DAY_S) == 0
    assert len(store.open_uploads()) == 3
    assert clean(store, DAY_S + 1) == 3
    assert store.open_uploads() == []


def test_a_process_of_another_user_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(_pid: int, _signal: int) -> None:
        raise PermissionError

    store = HookedStore()
    put_entry(store, "stream-1", host=socket.gethostname())
    monkeypatch.setattr(os, "kill", kill)
    assert clean(store) == 0


def test_a_stream_of_another_machine_is_thrown_away_when_it_is_old() -> None:
    store = HookedStore()
    put_entry(store, "stream-1")
    assert clean(store, DAY_S) == 0
    assert clean(store, DAY_S + 1) == 1
    assert store.open_uploads() == []


def test_copies_are_never_thrown_away_since_the_next_run_goes_on_with_them(dead_pid: int) -> None:
    store = HookedStore()
    put_entry(store, "name-1", host=socket.gethostname(), pid=dead_pid)
    assert clean(store, 100 * DAY_S) == 0
    assert store.open_uploads() == ["key-name-1"]
