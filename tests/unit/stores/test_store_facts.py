"""What stores tell about their buckets, read out of their answers."""

import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import botocore.exceptions as sdk
import pytest

from backupagent.cancel import Cancel
from backupagent.clock import FakeClock
from backupagent.errors import AccessDenied, StoreUnavailable
from backupagent.stores.azure_facts import container_facts
from backupagent.stores.base import StoreFacts, facts_of
from backupagent.stores.gcs_facts import bucket_facts as gcs_facts
from backupagent.stores.memory import MemoryStore
from backupagent.stores.retrying import RetryingStore
from backupagent.stores.s3_errors import SDK_ERRORS, translate
from backupagent.stores.s3_facts import bucket_facts as s3_facts
from backupagent.stores.throttled import Pace, ThrottledStore

DATE = "Thu, 01 Jan 2026 00:00:10 GMT"
DATE_S = 1_767_225_610.0
Answer = Mapping[str, Any] | Exception


def refusal(code: str, status: int) -> sdk.ClientError:
    return sdk.ClientError(
        {"Error": {"Code": code, "Message": "said no"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "op"
    )


UNLOCKED = refusal("ObjectLockConfigurationNotFoundError", 404)


class Client:
    """An SDK whose answers are made up."""

    def __init__(self, date: str = DATE, versioning: Answer | None = None, lock: Answer = UNLOCKED) -> None:
        self._head: Answer = {"ResponseMetadata": {"HTTPHeaders": {"date": date}}}
        self._versioning: Answer = {} if versioning is None else versioning
        self._lock = lock

    def head_bucket(self, Bucket: str) -> Mapping[str, Any]:  # noqa: N803 - the SDK's
        return _answer(self._head)

    def get_bucket_versioning(self, Bucket: str) -> Mapping[str, Any]:  # noqa: N803 - the SDK's
        return _answer(self._versioning)

    def get_object_lock_configuration(self, Bucket: str) -> Mapping[str, Any]:  # noqa: N803 - the SDK's
        return _answer(self._lock)


def _answer(answer: Answer) -> Mapping[str, Any]:
    if isinstance(answer, Exception):
        raise answer
    return answer


def translating(op: str, key: str) -> AbstractContextManager[None]:
    @contextmanager
    def translated():
        try:
            yield
        except SDK_ERRORS as error:
            raise translate(error, op, key, "s3://bucket") from error

    return translated()


def ask(client: Client) -> StoreFacts:
    return s3_facts(client, "bucket", translating)  # type: ignore[arg-type] # made up


def lock(**retention: Any) -> Mapping[str, Any]:
    return {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}}}


@pytest.mark.parametrize(
    ("client", "facts"),
    [
        (Client(), StoreFacts(DATE_S, versioning=False, retention="")),
        (Client(versioning={"Status": "Enabled"}), StoreFacts(DATE_S, versioning=True, retention="")),
        (Client(versioning={"Status": "Suspended"}), StoreFacts(DATE_S, versioning=False, retention="")),
        (
            Client(lock=lock(Mode="COMPLIANCE", Days=30)),
            StoreFacts(DATE_S, versioning=False, retention="object lock keeps new objects for 30 days (compliance)"),
        ),
        (
            Client(lock=lock(Mode="GOVERNANCE", Years=1)),
            StoreFacts(DATE_S, versioning=False, retention="object lock keeps new objects for 1 years (governance)"),
        ),
        (
            Client(lock={"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}),
            StoreFacts(DATE_S, versioning=False, retention=""),
        ),
        (
            Client(date="yesterday", versioning=refusal("AccessDenied", 403), lock=refusal("NotImplemented", 400)),
            StoreFacts(
                None,
                untold=("ask for versioning: AccessDenied: said no", "ask for object lock: NotImplemented: said no"),
            ),
        ),
    ],
)
def test_s3(client: Client, facts: StoreFacts) -> None:
    assert ask(client) == facts


def test_an_s3_that_is_away_is_asked_again() -> None:
    with pytest.raises(StoreUnavailable):
        ask(Client(versioning=refusal("SlowDown", 503)))


@pytest.mark.parametrize(
    ("headers", "retention", "time_s"),
    [
        ({"Date": DATE, "x-ms-has-immutability-policy": "false", "x-ms-has-legal-hold": "false"}, "", DATE_S),
        ({"date": "?", "x-ms-has-immutability-policy": "true"}, "the container has an immutability policy", None),
        (
            {"X-Ms-Has-Immutability-Policy": "true", "x-ms-has-legal-hold": "true"},
            "the container has an immutability policy and a legal hold",
            None,
        ),
    ],
)
def test_azure(headers: Mapping[str, str], retention: str, time_s: float | None) -> None:
    facts = container_facts(headers)
    assert (facts.retention, facts.time_s, facts.versioning) == (retention, time_s, None)
    assert "settings of the account" in facts.untold[0]


@pytest.mark.parametrize(
    ("bucket", "facts"),
    [
        ({}, StoreFacts(versioning=False, retention="")),
        ({"versioning": {"enabled": True}}, StoreFacts(versioning=True, retention="")),
        ({"softDeletePolicy": {"retentionDurationSeconds": "604800"}}, StoreFacts(versioning=True, retention="")),
        (
            {"retentionPolicy": {"retentionPeriod": "60"}, "defaultEventBasedHold": True},
            StoreFacts(
                versioning=False,
                retention="a retention policy keeps new objects for 60 s, new objects get an event-based hold",
            ),
        ),
    ],
)
def test_google(bucket: Mapping[str, Any], facts: StoreFacts) -> None:
    assert gcs_facts(bucket) == facts


def test_a_store_that_knows_nothing_tells_nothing() -> None:
    assert facts_of(MemoryStore()) == StoreFacts()


def test_wrappers_pass_it_on_and_repeat_it() -> None:
    class Telling(MemoryStore):
        asked = 0

        def facts(self) -> StoreFacts:
            self.asked += 1
            if self.asked == 1:
                raise StoreUnavailable("slow down", op="ask")
            if self.asked == 2:
                return StoreFacts(time_s=1.0)
            raise AccessDenied("no", op="ask")

    clock = FakeClock()
    pace = Pace(0, clock, Cancel())
    inner = ThrottledStore(Telling(), bandwidth=pace, requests=pace)
    outer = RetryingStore(inner, clock=clock, rng=random.Random(1))
    assert facts_of(outer) == StoreFacts(time_s=1.0)
    with pytest.raises(AccessDenied):
        facts_of(outer)
