"""Uploads into one session that go on in another process, with other credentials, or in a bucket with retention."""

import itertools
import json
import logging
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import google_crc32c
import pytest
from gcs_service import QUANTUM, GcsService
from google.auth.credentials import AnonymousCredentials
from session_stores import Bearer, content, key_of, pieces, send

from backupagent.cancel import Cancel
from backupagent.clock import FakeClock
from backupagent.errors import ObjectNotFound, StoreUnavailable
from backupagent.progress import Progress
from backupagent.settings import TransferSettings
from backupagent.stores.base import ObjectStore
from backupagent.stores.gcs import GcsSettings, GcsStore, open_gcs
from backupagent.stores.gcs_sessions import Seal
from backupagent.stores.gcs_values import encode_crc32c
from backupagent.stores.memory import MemoryStore
from backupagent.stores.reopening import LOOK_EVERY_S, ReopeningStore
from backupagent.stores.retrying import RetryingStore
from backupagent.transfer.context import Transfer
from backupagent.transfer.copying import CopyItem, CopyOutcome, copy_objects
from backupagent.transfer.journal import UploadJournal

FOLDER = "p/manifests/parts/"

KILLED = """
import os, signal, sys
from backupagent.stores import open_store, parse_location
store = open_store(parse_location(sys.argv[1]))
upload = store.begin_upload("p/v2/big", part_size=2**18, metadata={"kind": "full"})
for number in (1, 2, 3):
    store.upload_part(upload, number, str(number).encode() * 2**18)
os.kill(os.getpid(), signal.SIGKILL)
"""


class Seen:
    def update(self, data: memoryview) -> None:
        """Take it."""

    def finish(self) -> None:
        """Agree."""


@pytest.fixture
def store(open_one: Callable[..., GcsStore]) -> GcsStore:
    return open_one()


class TestRotatedCredentials:
    @pytest.mark.parametrize("tokens", [False, True])
    def test_the_session_goes_on(self, service: GcsService, tmp_path: Path, tokens: bool) -> None:
        """With a key that cannot open the record, or tokens, with which there is none."""

        def opener() -> GcsStore:
            credentials = Bearer() if tokens else key_of("a")
            credentials.token, credentials.expiry = f"token{next(count)}", None
            return open_gcs(GcsSettings("bucket", credentials, service.url, "p"))

        count, clock, file = itertools.count(1), FakeClock(), tmp_path / "key"
        file.write_text("first")
        data = content(7 * QUANTUM)
        with closing(ReopeningStore(opener, credentials=file, clock=clock)) as store:
            upload = store.begin_upload("a", part_size=2 * QUANTUM)
            one, *others = pieces(data, 2 * QUANTUM)
            tags = [store.upload_part(upload, 1, one)]
            file.write_text("another")
            clock.sleep(LOOK_EVERY_S + 1)
            tags += [store.upload_part(upload, number, piece) for number, piece in enumerate(others, 2)]
            store.complete_upload(upload, tags)
        assert service.objects["a"][0] == data
        assert service.received == len(data)
        assert list(service.objects) == ["a"]
        sent = [headers["authorization"] for method, _, headers, _ in service.requests if method == "PUT"]
        assert (sent[0], sent[-1]) == ("Bearer token1", "Bearer token2")


class TestAnotherProcess:
    @pytest.mark.parametrize("part_size", [QUANTUM + 1, 2 * QUANTUM])
    def test_goes_on_where_the_service_says(
        self, service: GcsService, open_one: Callable[..., GcsStore], part_size: int
    ) -> None:
        data = content(7 * part_size + 3)
        first = open_one()
        begun = first.begin_upload("a", part_size=part_size)
        for number, piece in enumerate(pieces(data, part_size)[:4], 1):
            first.upload_part(begun, number, piece)
        second = open_one()
        (upload,) = second.list_uploads("")
        assert (upload, upload.in_order) == (begun, True)
        held = second.list_parts(upload)
        assert [tag.number for tag in held] == [1, 2, 3], "the end of the fourth was held back"
        assert {tag.crc32 for tag in held} == {None}
        second.complete_upload(upload, send(second, upload, data))
        assert service.objects["a"][0] == data
        assert service.received == len(data), "no byte was sent twice"
        assert service.sums == [f"crc32c={encode_crc32c(google_crc32c.value(data))}"]

    def test_may_trust_what_is_there(self, service: GcsService, open_one: Callable[..., GcsStore]) -> None:
        data = content(5 * QUANTUM)
        begun = open_one().begin_upload("a", part_size=2 * QUANTUM)
        send(open_one(), begun, data[: 4 * QUANTUM])
        store = open_one()
        held = store.list_parts(begun)
        assert [tag.number for tag in held] == [1]
        tags = [
            store.upload_part(begun, number, piece) for number, piece in [*enumerate(pieces(data, 2 * QUANTUM), 1)][1:]
        ]
        store.complete_upload(begun, [*held, *tags])
        assert service.objects["a"][0] == data
        assert service.sums == [None]

    def test_finds_nothing_of_what_was_finished(self, open_one: Callable[..., GcsStore]) -> None:
        store = open_one()
        upload = store.begin_upload("a", part_size=4)
        store.complete_upload(upload, send(store, upload, b"data"))
        with pytest.raises(ObjectNotFound):
            open_one().list_parts(upload)

    @pytest.mark.parametrize("other", [False, True])
    def test_an_abort_cancels_the_session(
        self, service: GcsService, open_one: Callable[..., GcsStore], other: bool
    ) -> None:
        store = open_one()
        upload = store.begin_upload("a", part_size=4)
        (open_one() if other else store).abort_upload(upload)
        assert service.uploads["secret0"].state == "cancelled"
        assert list(service.objects) == []
        store.abort_upload(upload)
        assert list(open_one().list_uploads("")) == []


class TestCopies:
    """By the engine, whose workers read parts in any order."""

    SIZE = 9 * QUANTUM + 5

    def copy(self, store: ObjectStore, source: MemoryStore) -> CopyOutcome:
        items = [
            CopyItem(info.key, info.size, info.etag, f"copy/{info.key}", Seen(), dict, f"name-{info.key}")
            for info in source.list_objects("")
        ]
        how = Transfer(TransferSettings(workers=4, window=2, part_size=QUANTUM), Cancel(), Progress())
        return copy_objects(source, store, items, UploadJournal(store, "journal/"), how)

    @pytest.fixture
    def source(self) -> MemoryStore:
        source = MemoryStore()
        for key in "ab":
            source.put(key, content(self.SIZE))
        return source

    def test_through_answers_that_are_lost(self, service: GcsService, store: GcsStore, source: MemoryStore) -> None:
        service.faults = [None, "refuse", *[None] * 9, "lose the answer", None, "refuse", None, "lose the answer"]
        retrying = RetryingStore(store, clock=FakeClock(), rng=random.Random(1))
        outcome = self.copy(retrying, source)
        assert len(outcome.copied) == 2
        assert service.faults == []
        assert {name: stored[0] for name, stored in service.objects.items()} == dict.fromkeys(
            ("copy/a", "copy/b"), content(self.SIZE)
        )
        assert service.received == 2 * self.SIZE
        assert list(store.list_uploads("")) == []

    def test_what_a_run_left_is_gone_on_with(
        self, service: GcsService, open_one: Callable[..., GcsStore], source: MemoryStore
    ) -> None:
        source.delete("b")
        service.faults = [*[None] * 9, "refuse"]
        with pytest.raises(StoreUnavailable):
            self.copy(open_one(), source)
        before = service.received
        assert QUANTUM < before < self.SIZE
        store = open_one()
        (copied,) = self.copy(store, source).copied
        assert copied.reread >= before - QUANTUM
        assert service.received == self.SIZE, "no byte was sent twice"
        assert list(service.objects) == ["copy/a"]
        assert service.objects["copy/a"][0] == content(self.SIZE)

    def test_what_a_killed_process_left_is_gone_on_with(
        self, service: GcsService, open_one: Callable[..., GcsStore]
    ) -> None:
        uri = f"gs://bucket/p?endpoint={service.url}"
        done = subprocess.run([sys.executable, "-c", KILLED, uri], capture_output=True, text=True, check=False)
        assert done.returncode == -9, done.stderr
        store = open_one()
        (upload,) = store.list_uploads("p/v2/")
        assert (upload.key, upload.part_size, upload.in_order) == ("p/v2/big", QUANTUM, True)
        assert [tag.number for tag in store.list_parts(upload)] == [1, 2]
        data = b"1" * QUANTUM + b"2" * QUANTUM + b"3" * QUANTUM + b"4"
        store.complete_upload(upload, send(store, upload, data))
        assert service.objects["p/v2/big"][:2] == (data, {"kind": "full"})
        assert service.received == len(data)
        assert list(service.objects) == ["p/v2/big"]


class TestRetention:
    def test_a_record_that_cannot_be_removed_is_no_open_upload(
        self, service: GcsService, open_one: Callable[..., GcsStore]
    ) -> None:
        service.held = True
        store = open_one()
        finished, aborted, left = (store.begin_upload(key, part_size=4) for key in "abc")
        store.complete_upload(finished, send(store, finished, b"data"))
        store.abort_upload(aborted)
        assert service.objects["a"][0] == b"data"
        other = open_one()
        assert other.list_uploads("") == [left]
        other.abort_upload(left)
        assert list(open_one().list_uploads("")) == []
        assert len([name for name in service.objects if name.startswith(FOLDER)]) == 3

    def test_parts_that_cannot_be_removed_are_said_and_no_failure(
        self, service: GcsService, store: GcsStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        service.bucket_status, service.held = 403, True
        upload = store.begin_upload("a", part_size=4)
        send(store, upload, b"datada")
        store.abort_upload(upload)
        assert "2 parts of a stay" in caplog.text
        assert "storage.buckets.get" in caplog.text

    def test_a_record_without_its_session_is_listed_where_it_can_be_removed(
        self, service: GcsService, open_one: Callable[..., GcsStore]
    ) -> None:
        upload = open_one().begin_upload("a", part_size=4)
        service.uploads["secret0"].state = "cancelled"
        other = open_one()
        assert other.list_uploads("") == [upload]
        other.abort_upload(upload)
        assert list(open_one().list_uploads("")) == []


class TestTheSecretOfASession:
    def test_is_sealed_by_the_private_key(self) -> None:
        mine, other = key_of("a"), key_of("b")
        sealed = Seal(mine).close("/secret")
        assert "secret" not in sealed
        assert Seal(mine).open(sealed) == "/secret"
        assert [Seal(who).open(sealed) for who in (other, AnonymousCredentials(), Bearer())] == [""] * 3
        assert [Seal(mine).open(text) for text in ("", "x", sealed[:-4])] == [""] * 3
        assert Seal(Bearer()).close("/secret") == ""

    def test_is_nowhere_to_be_read(
        self, service: GcsService, open_one: Callable[..., GcsStore], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        store = open_one()
        upload = store.begin_upload("a", part_size=4)
        service.faults = ["refuse"]
        with pytest.raises(StoreUnavailable) as raised:
            store.complete_upload(upload, send(store, upload, b"data"))
        (record,) = [content for name, (content, *_) in service.objects.items() if name.startswith(FOLDER)]
        assert set(json.loads(record)) == {"key", "part_size", "metadata", "session"}
        texts = (record.decode(), caplog.text, str(raised.value), repr(upload), repr(store._records._open))
        assert [text for text in texts if "secret0" in text] == []

    def test_with_tokens_alone_it_is_not_written_down(
        self, service: GcsService, open_one: Callable[..., GcsStore]
    ) -> None:
        store = open_one(Bearer())
        upload, left = (store.begin_upload(key, part_size=4) for key in "ab")
        assert service.objects == {}
        store.complete_upload(upload, send(store, upload, b"data"))
        assert list(service.objects) == ["a"]
        with pytest.raises(ObjectNotFound):
            open_one(Bearer()).list_parts(left)

    def test_other_credentials_cannot_go_on_but_remove_the_record(
        self, service: GcsService, open_one: Callable[..., GcsStore]
    ) -> None:
        upload = open_one().begin_upload("a", part_size=4)
        other = open_one(Bearer())
        assert other.list_uploads("") == [upload]
        with pytest.raises(ObjectNotFound, match="other credentials"):
            other.list_parts(upload)
        other.abort_upload(upload)
        assert service.objects == {}
        assert service.uploads["secret0"].state == "open", "it ends by itself"
