"""Rotated credentials: noticed in their files, and after a denial; one opening for all, every call once more."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupagent.clock import FakeClock
from backupagent.errors import AccessDenied, ConfigError, StoreUnavailable
from backupagent.stores.base import Copies, ObjectInfo, PartTag, StoreFacts, facts_of
from backupagent.stores.memory import MemoryStore
from backupagent.stores.reopening import AGAIN_AFTER_S, LOOK_EVERY_S, ReopeningStore, fingerprint

KEYS = [f"k{number}" for number in range(6)]


class Account:
    """Who holds the only key that is good; stores are opened with the one that the file names at that moment."""

    def __init__(self, file: Path | None) -> None:
        self.good = "one"
        self.objects = MemoryStore("account", copies=Copies("here", smallest=1, whole=9, part=9))
        self.file = file
        self.environment = "one"
        self.opened: list[Guarded] = []

    def open(self) -> "Guarded":
        key = self.environment if self.file is None else self.file.read_text()
        if not key:
            raise ConfigError("the credentials are empty")
        self.opened.append(Guarded(self, key))
        return self.opened[-1]


class Guarded(MemoryStore):
    """A store that asks for the right key at every call, and every page of two entries."""

    def __init__(self, account: Account, key: str) -> None:
        super().__init__("guarded")
        self.account, self.key, self.calls, self.closed = account, key, 0, False

    def check(self) -> MemoryStore:
        assert not self.closed
        self.calls += 1
        if self.key != self.account.good:
            raise AccessDenied("who are you", op="any", store=self.display)
        return self.account.objects

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        for number, info in enumerate(self.account.objects.list_objects(prefix)):
            if number % 2 == 0:
                self.check()
            yield info

    def stat(self, key: str) -> ObjectInfo:
        return self.check().stat(key)

    def read_into(self, key, buffer, *, offset=0, etag=""):
        return self.check().read_into(key, buffer, offset=offset, etag=etag)

    def put(self, key, data, *, if_absent=False, metadata=None):
        return self.check().put(key, data, if_absent=if_absent, metadata=metadata or {})

    def begin_upload(self, key, *, part_size, metadata=None, copied=False):
        return self.check().begin_upload(key, part_size=part_size, metadata=metadata or {}, copied=copied)

    def copy_source(self, key, *, etag=""):
        return self.check().copy_source(key, etag=etag)

    def copy_object(self, source, key):
        return self.check().copy_object(source, key)

    def copy_part(self, upload, number, source, *, offset, size):
        return self.check().copy_part(upload, number, source, offset=offset, size=size)

    def upload_part(self, upload, number, data) -> PartTag:
        return self.check().upload_part(upload, number, data)

    def list_parts(self, upload):
        return self.check().list_parts(upload)

    def complete_upload(self, upload, parts, *, if_absent=False):
        return self.check().complete_upload(upload, parts, if_absent=if_absent)

    def abort_upload(self, upload):
        self.check().abort_upload(upload)

    def list_uploads(self, prefix):
        return self.check().list_uploads(prefix)

    def delete(self, key):
        self.check().delete(key)

    def facts(self) -> StoreFacts:
        self.check()
        return StoreFacts(time_s=1.0)

    def close(self) -> None:
        assert not self.closed
        self.closed = True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def account(tmp_path: Path) -> Account:
    file = tmp_path / "key"
    file.write_text("one")
    made = Account(file)
    for key in KEYS:
        made.objects.put(key, b"content")
    return made


@pytest.fixture
def store(account: Account, clock: FakeClock) -> ReopeningStore:
    return ReopeningStore(account.open, credentials=account.file, clock=clock)


def rotate(account: Account, key: str = "second") -> None:
    """Write another key; its size is another one too, so that no coarse clock of a file system hides it."""
    assert account.file is not None
    account.good = key
    account.file.write_text(key)


def test_changed_files_are_noticed_before_anything_fails(account, store, clock) -> None:
    assert store.stat("k1").size == 7
    assert account.file is not None
    account.file.write_text("second")
    clock.sleep(LOOK_EVERY_S - 1)
    store.stat("k1")
    assert [opened.key for opened in account.opened] == ["one"]  # not looked at yet
    account.good = "second"
    clock.sleep(1)
    store.stat("k1")
    assert [(opened.key, opened.calls, opened.closed) for opened in account.opened] == [
        ("one", 2, True), ("second", 1, False),
    ]  # fmt: skip
    store.close()
    assert account.opened[1].closed


def test_a_switched_link_is_noticed_although_size_and_time_are_the_same(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(name[:5].ljust(6))
        os.utime(tmp_path / name / "key", ns=(1, 1))
        os.utime(tmp_path / name, ns=(1, 1))
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "..data").symlink_to(tmp_path / "first")
    (mounted / "key").symlink_to("..data/key")
    before = fingerprint(mounted)
    assert fingerprint(mounted) == before
    (tmp_path / "new").symlink_to(tmp_path / "second")
    (tmp_path / "new").rename(mounted / "..data")
    assert fingerprint(mounted) != before
    assert fingerprint(tmp_path / "gone") == ()


def test_every_call_is_made_once_more_after_a_denial(account, store) -> None:
    buffer = memoryview(bytearray(7))
    upload = store.begin_upload("u", part_size=1)
    source = store.copy_source("k1")
    calls = [
        lambda: list(store.list_objects("")),
        lambda: store.stat("k1"),
        lambda: store.read_into("k1", buffer),
        lambda: store.put("new", b"x", if_absent=True),
        lambda: store.begin_upload("v", part_size=1),
        lambda: store.upload_part(upload, 1, b"x"),
        lambda: store.list_parts(upload),
        lambda: store.list_uploads(""),
        lambda: store.copy_source("k1"),
        lambda: store.copy_object(source, "copy"),
        lambda: store.copy_part(upload, 1, source, offset=0, size=1),
        lambda: store.complete_upload(upload, store.list_parts(upload)),
        lambda: store.abort_upload(upload),
        lambda: store.delete("new"),
        lambda: facts_of(store),
    ]
    for number, call in enumerate(calls):
        rotate(account, f"key{number}")
        call()
        assert account.opened[-1].key == f"key{number}"
    assert buffer == b"content"
    assert [opened.closed for opened in account.opened] == [True] * len(calls) + [False]


def test_a_listing_goes_on_where_it_was_denied(account, store) -> None:
    listing = store.list_objects("")
    found = [next(listing).key for _ in range(3)]
    rotate(account)
    found += [info.key for info in listing]
    assert found == KEYS


def test_refused_again_is_the_end(account, store, clock) -> None:
    account.good = "nobody's"
    for _ in range(3):
        with pytest.raises(AccessDenied):
            store.stat("k1")
    assert [opened.calls for opened in account.opened] == [1, 3]  # opened anew once, not once for each
    with pytest.raises(AccessDenied):
        list(store.list_objects(""))
    assert len(account.opened) == 2
    clock.sleep(AGAIN_AFTER_S)
    with pytest.raises(AccessDenied):
        store.stat("k1")
    assert len(account.opened) == 3


def test_files_that_changed_count_at_once_however_soon_after_a_denial(account, store) -> None:
    account.good = "two"
    with pytest.raises(AccessDenied):
        store.stat("k1")
    rotate(account)
    assert store.stat("k1").size == 7


def test_another_error_opens_nothing(account, store, monkeypatch) -> None:
    def fail(_key: str) -> None:
        raise StoreUnavailable("503", op="stat")

    monkeypatch.setattr(account.opened[0], "stat", fail)
    with pytest.raises(StoreUnavailable):
        store.stat("k1")
    assert len(account.opened) == 1


def test_files_that_cannot_be_used_change_nothing(account, store, clock, caplog) -> None:
    assert account.file is not None
    account.file.write_text("")
    for _ in range(3):
        clock.sleep(LOOK_EVERY_S)
        assert store.stat("k1").size == 7
    assert caplog.text.count("cannot be read again") == 1
    account.good = "two"
    with pytest.raises(AccessDenied):  # the denial counts, not what is wrong with the files
        store.stat("k1")
    assert store.display == account.opened[0].display
    assert (store.limits, store.features) == (account.opened[0].limits, account.opened[0].features)
    rotate(account)
    assert store.stat("k1").size == 7


def test_without_files_only_a_denial_opens_anew(clock) -> None:
    account = Account(None)
    account.objects.put("k1", b"content")
    store = ReopeningStore(account.open, credentials=None, clock=clock)
    account.environment = "two"
    clock.sleep(LOOK_EVERY_S)
    store.stat("k1")
    account.good = "two"
    assert store.stat("k1").size == 7
    assert [opened.key for opened in account.opened] == ["one", "two"]


def test_many_threads_share_one_opening_and_none_loses_its_store(account, store, monkeypatch) -> None:
    together = threading.Barrier(16)
    check = Guarded.check

    def check_together(guarded: Guarded) -> MemoryStore:
        if guarded.key == "one":
            together.wait(60)  # all of them have begun with the old key
        return check(guarded)

    monkeypatch.setattr(Guarded, "check", check_together)
    rotate(account)
    sizes: list[int] = []
    threads = [threading.Thread(target=lambda: sizes.append(store.stat("k1").size)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [7] * 16
    assert [(opened.key, opened.calls, opened.closed) for opened in account.opened] == [
        ("one", 16, True), ("second", 16, False),
    ]  # fmt: skip


def test_a_store_is_closed_when_its_last_call_has_ended(account, store) -> None:
    listing = store.list_objects("")
    assert next(listing).key == "k0"
    rotate(account)
    store.stat("k1")
    assert not account.opened[0].closed
    rotate(account, "one")  # what the old store asks for its next pages
    assert [info.key for info in listing] == KEYS[1:]
    assert account.opened[0].closed
    store.close()
    store.close()
    assert account.opened[-1].closed
