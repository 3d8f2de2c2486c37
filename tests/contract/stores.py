"""Every store that must keep the contract: name -> how to open an empty one. A new provider adds one line."""

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from google.auth.credentials import AnonymousCredentials

from backupagent.cancel import Cancel
from backupagent.clock import FakeClock
from backupagent.stores.azure import AzureSettings, open_azure
from backupagent.stores.base import Copies, ObjectStore
from backupagent.stores.gcs import GcsSettings, open_gcs
from backupagent.stores.local import LocalStore
from backupagent.stores.memory import MemoryStore
from backupagent.stores.reopening import ReopeningStore
from backupagent.stores.retrying import RetryingStore
from backupagent.stores.s3 import open_s3
from backupagent.stores.s3_settings import S3Settings
from backupagent.stores.throttled import Pace, ThrottledStore
from backupagent.testing.faulty import FaultyStore
from backupagent.testing.servers import MinioServer
from backupagent.testing.store_servers import AzuriteServer, FakeGcsServer

_serial = itertools.count(1)

COPIES = Copies("contract", smallest=1, whole=1024**2, part=64 * 1024)
"""How the stores in memory copy."""


@contextlib.contextmanager
def _memory(_request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    yield MemoryStore(copies=COPIES)


@contextlib.contextmanager
def _local(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    root = request.getfixturevalue("tmp_path") / f"bucket-{next(_serial)}"
    root.mkdir()
    yield LocalStore(root)


@contextlib.contextmanager
def _faulty(_request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    yield FaultyStore(MemoryStore(copies=COPIES))


@contextlib.contextmanager
def _retrying(_request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    yield RetryingStore(MemoryStore(copies=COPIES), clock=FakeClock(), rng=random.Random(1))


@contextlib.contextmanager
def _throttled(_request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    clock, cancel = FakeClock(), Cancel()
    pace = Pace(10**9, clock, cancel)
    yield ThrottledStore(MemoryStore(copies=COPIES), bandwidth=pace, requests=pace)


@contextlib.contextmanager
def _reopening(_request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    yield ReopeningStore(lambda: MemoryStore(copies=COPIES), credentials=None, clock=FakeClock())


@contextlib.contextmanager
def _minio(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    server: MinioServer = request.getfixturevalue("minio")
    bucket = f"bucket-{next(_serial)}"
    server.make_bucket(bucket)
    store = open_s3(s3_settings(server, bucket))
    with contextlib.closing(store):
        yield store


@contextlib.contextmanager
def _minio_versions(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """A bucket that keeps versions behaves like any other to its only user."""
    server: MinioServer = request.getfixturevalue("minio")
    bucket = f"bucket-{next(_serial)}"
    server.make_bucket(bucket, object_lock=True)
    with contextlib.closing(open_s3(s3_settings(server, bucket))) as store:
        yield store


@contextlib.contextmanager
def _azurite(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    server: AzuriteServer = request.getfixturevalue("azurite")
    container = f"container-{next(_serial)}"
    server.make_container(container)
    with contextlib.closing(open_azure(azure_settings(server, container))) as store:
        yield store


@contextlib.contextmanager
def _fake_gcs(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    server: FakeGcsServer = request.getfixturevalue("fake_gcs")
    bucket = f"bucket-{next(_serial)}"
    server.make_bucket(bucket)
    with contextlib.closing(open_gcs(gcs_settings(server, bucket))) as store:
        yield store


@contextlib.contextmanager
def _fake_gcs_sessions(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """Open a bucket that keeps what is deleted, so that parts go into sessions."""
    server: FakeGcsServer = request.getfixturevalue("fake_gcs")
    bucket = f"bucket-{next(_serial)}"
    server.make_bucket(bucket, versioning=True)
    with contextlib.closing(open_gcs(gcs_settings(server, bucket))) as store:
        yield store


def azure_settings(server: AzuriteServer, container: str, prefix: str = "") -> AzureSettings:
    return AzureSettings(
        container,
        account_url=server.endpoint_url,
        display=f"az://{container}?endpoint={server.endpoint_url}",
        prefix=prefix,
        credential=AzureNamedKeyCredential(server.account, server.key),
    )


def gcs_settings(server: FakeGcsServer, bucket: str, prefix: str = "") -> GcsSettings:
    return GcsSettings(bucket, credentials=AnonymousCredentials(), endpoint=server.endpoint_url, prefix=prefix)


def s3_settings(server: MinioServer, bucket: str) -> S3Settings:
    return S3Settings(
        bucket,
        endpoint=server.endpoint_url,
        region=server.REGION,
        path_style=True,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
    )


SERVERS = {"minio", "minio-versions", "azurite", "fake-gcs", "fake-gcs-sessions"}
"""Those that need a real server."""

UNPROVEN = {
    ("fake-gcs", "test_of_many_uploads_one_wins"): "fake-gcs-server ignores the preconditions of compose",
    (
        "fake-gcs-sessions",
        "test_of_many_uploads_one_wins",
    ): "no session can be told so at its end",
    **{
        (name, "test_a_source_that_was_replaced_is_not_copied"): "fake-gcs-server ignores the preconditions of rewrite"
        for name in ("fake-gcs", "fake-gcs-sessions")
    },
}
"""What an emulator cannot prove, by store and test. That we ask for it is tested in ``tests/unit/stores``."""

STORES: dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[ObjectStore]]] = {
    "memory": _memory,
    "local": _local,
    "faulty-memory": _faulty,
    "retrying-memory": _retrying,
    "throttled-memory": _throttled,
    "reopening-memory": _reopening,
    "minio": _minio,
    "minio-versions": _minio_versions,
    "azurite": _azurite,
    "fake-gcs": _fake_gcs,
    "fake-gcs-sessions": _fake_gcs_sessions,
}

PARAMS = [pytest.param(name, marks=pytest.mark.servers if name in SERVERS else ()) for name in STORES]
