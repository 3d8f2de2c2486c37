"""Uploads into one session, against a server that keeps to Google's rules for them and fails on demand."""

from collections.abc import Callable

import google_crc32c
import pytest
from gcs_service import QUANTUM, GcsService
from session_stores import content, pieces, send

from backupagent.errors import ChecksumMismatch, ConfigError, ObjectExists, ObjectNotFound, StoreError, StoreUnavailable
from backupagent.stores.base import PartTag
from backupagent.stores.gcs import GcsStore
from backupagent.stores.gcs_values import encode_crc32c


@pytest.fixture
def store(open_one: Callable[..., GcsStore]) -> GcsStore:
    return open_one()


class TestWhichBuckets:
    @pytest.mark.parametrize(
        "bucket",
        [
            {"retentionPolicy": {"retentionPeriod": "3600"}},
            {"softDeletePolicy": {"retentionDurationSeconds": "604800"}},
            {"versioning": {"enabled": True}},
            {"defaultEventBasedHold": True},
        ],
    )
    def test_those_that_keep_what_is_deleted(
        self, service: GcsService, store: GcsStore, bucket: dict[str, object]
    ) -> None:
        service.bucket = bucket
        assert [store.begin_upload(key, part_size=4).in_order for key in "ab"] == [True, True]
        assert sum(path.startswith("/storage/v1/b/bucket?") for _, path, _, _ in service.requests) == 1

    @pytest.mark.parametrize(
        "bucket", [{}, {"softDeletePolicy": {"retentionDurationSeconds": "0"}}, {"versioning": {"enabled": False}}]
    )
    def test_not_the_others(self, service: GcsService, store: GcsStore, bucket: dict[str, object]) -> None:
        service.bucket = bucket
        assert not store.begin_upload("a", part_size=4).in_order
        assert service.uploads == {}

    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_not_where_one_may_not_ask(self, service: GcsService, store: GcsStore, status: int) -> None:
        service.bucket_status = status
        assert not store.begin_upload("a", part_size=4).in_order

    def test_an_answer_that_fails_decides_nothing(self, service: GcsService, store: GcsStore) -> None:
        service.faults = ["refuse"]
        with pytest.raises(StoreUnavailable):
            store.begin_upload("a", part_size=4)
        assert store.begin_upload("a", part_size=4).in_order

    def test_what_cannot_be_completed_is_not_begun(self, service: GcsService, store: GcsStore) -> None:
        with pytest.raises(ConfigError):
            store.begin_upload("a", part_size=0)
        assert service.uploads == {}


class TestParts:
    @pytest.mark.parametrize("part_size", [1000, QUANTUM - 1, QUANTUM, QUANTUM + 1, 3 * QUANTUM, 5 * QUANTUM // 2])
    @pytest.mark.parametrize("size", [1, QUANTUM, QUANTUM + 1, 3 * QUANTUM, 7 * QUANTUM + 5])
    def test_become_one_object(self, service: GcsService, store: GcsStore, part_size: int, size: int) -> None:
        data = content(size)
        upload = store.begin_upload("v2/a", part_size=part_size, metadata={"kind": "full"})
        tags = send(store, upload, data)
        assert "v2/a" not in service.objects
        info = store.complete_upload(upload, tags)
        assert service.objects["v2/a"][:2] == (data, {"kind": "full"})
        assert (info.key, info.size, info.etag) == ("v2/a", size, str(service.objects["v2/a"][2]))
        assert service.received == size
        assert service.sums == [f"crc32c={encode_crc32c(google_crc32c.value(data))}"]
        assert list(service.objects) == ["v2/a"]
        assert list(store.list_uploads("")) == []

    def test_come_in_order(self, store: GcsStore) -> None:
        upload = store.begin_upload("a", part_size=4)
        with pytest.raises(StoreError, match="part 2 came before part 1") as raised:
            store.upload_part(upload, 2, b"data")
        assert not raised.value.retryable
        tag = store.upload_part(upload, 1, b"data")
        assert store.upload_part(upload, 1, b"data") == tag
        with pytest.raises(StoreError, match="cannot be replaced"):
            store.upload_part(upload, 1, b"tada")
        with pytest.raises(StoreError, match="1 of 2 parts"):
            store.complete_upload(upload, [tag, PartTag(2, 4, "")])

    def test_end_with_the_first_short_one(self, store: GcsStore) -> None:
        upload = store.begin_upload("a", part_size=4)
        store.upload_part(upload, 1, b"dat")
        with pytest.raises(StoreError, match="part 1 was short"):
            store.upload_part(upload, 2, b"data")
        assert store.list_uploads("") == [upload]

    def test_only_if_there_is_no_object(self, service: GcsService, store: GcsStore) -> None:
        upload = store.begin_upload("a", part_size=4)
        tags = send(store, upload, b"data")
        store.put("a", b"other")
        with pytest.raises(ObjectExists):
            store.complete_upload(upload, tags, if_absent=True)
        assert service.objects["a"][0] == b"other"


class TestFaults:
    @pytest.mark.parametrize("fault", ["lose the answer", "refuse"])
    def test_a_part_is_sent_again_from_where_it_broke_off(
        self, service: GcsService, store: GcsStore, fault: str
    ) -> None:
        data = content(6 * QUANTUM + 5)
        upload = store.begin_upload("a", part_size=2 * QUANTUM)
        one, two, *rest = pieces(data, 2 * QUANTUM)
        tags = [store.upload_part(upload, 1, one)]
        service.faults = [fault]
        with pytest.raises(StoreUnavailable):
            store.upload_part(upload, 2, two)
        tags += [store.upload_part(upload, number, piece) for number, piece in enumerate([two, *rest], 2)]
        store.complete_upload(upload, tags)
        assert service.objects["a"][0] == data
        assert service.received == len(data)

    def test_a_service_that_takes_a_part_of_a_chunk_gets_the_rest(self, service: GcsService, store: GcsStore) -> None:
        data = content(5 * QUANTUM)
        upload = store.begin_upload("a", part_size=len(data))
        service.faults = ["take less"]
        store.complete_upload(upload, send(store, upload, data))
        assert service.objects["a"][0] == data

    @pytest.mark.parametrize(("fault", "kind"), [("take nothing", StoreUnavailable), ("say nonsense", StoreError)])
    def test_a_service_that_takes_nothing(
        self, service: GcsService, store: GcsStore, fault: str, kind: type[StoreError]
    ) -> None:
        data = content(5 * QUANTUM)
        upload = store.begin_upload("a", part_size=len(data))
        service.faults = [fault]
        with pytest.raises(kind):
            store.upload_part(upload, 1, data)
        store.complete_upload(upload, send(store, upload, data))
        assert service.objects["a"][0] == data

    def test_bytes_that_the_service_has_lost_are_noticed(self, service: GcsService, store: GcsStore) -> None:
        upload = store.begin_upload("a", part_size=2 * QUANTUM)
        data = content(6 * QUANTUM)
        one, two, _ = pieces(data, 2 * QUANTUM)
        store.upload_part(upload, 1, one)
        store.upload_part(upload, 2, two)
        service.uploads["secret0"].content = bytearray()
        service.faults = ["refuse"]
        with pytest.raises(StoreUnavailable):
            store.upload_part(upload, 3, two)
        with pytest.raises(StoreError, match="has lost the bytes behind 0"):
            store.upload_part(upload, 3, two)

    @pytest.mark.parametrize("if_absent", [False, True])
    def test_completing_again_after_a_lost_answer(self, service: GcsService, store: GcsStore, if_absent: bool) -> None:
        upload = store.begin_upload("a", part_size=4)
        tags = send(store, upload, b"data")
        service.faults = [*([None] if if_absent else []), "lose the answer"]
        with pytest.raises(StoreUnavailable):
            store.complete_upload(upload, tags, if_absent=if_absent)
        with pytest.raises(ObjectNotFound):
            store.list_parts(upload)
        with pytest.raises(ObjectNotFound):
            store.upload_part(upload, 1, b"data")
        assert store.complete_upload(upload, tags, if_absent=if_absent).size == 4
        assert len(service.sums) == 1
        assert list(store.list_uploads("")) == []

    def test_a_service_that_waits_for_more_is_asked_again(self, service: GcsService, store: GcsStore) -> None:
        upload = store.begin_upload("a", part_size=4)
        tags = send(store, upload, b"data")
        service.faults = ["take nothing"]
        with pytest.raises(StoreUnavailable, match="waits for more"):
            store.complete_upload(upload, tags)
        store.complete_upload(upload, tags)
        assert service.objects["a"][0] == b"data"

    def test_another_content_is_noticed_and_removed(self, service: GcsService, store: GcsStore) -> None:
        upload = store.begin_upload("a", part_size=4)
        tags = send(store, upload, b"data")
        service.faults = ["flip"]
        with pytest.raises(ChecksumMismatch):
            store.complete_upload(upload, tags)
        assert "a" not in service.objects

    def test_a_session_that_is_gone(self, service: GcsService, store: GcsStore) -> None:
        upload = store.begin_upload("a", part_size=2 * QUANTUM)
        service.uploads["secret0"].state = "cancelled"
        with pytest.raises(ObjectNotFound, match="499"):
            store.upload_part(upload, 1, bytes(2 * QUANTUM))

    def test_an_answer_without_a_session(
        self, store: GcsStore, service: GcsService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service.faults = [None]
        monkeypatch.setattr("gcs_service.Handler.upload", lambda self, *_: self.answer(200))
        with pytest.raises(StoreError, match="names no session"):
            store.begin_upload("a", part_size=4)
