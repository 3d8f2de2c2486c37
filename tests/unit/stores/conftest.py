"""A server of Google's protocol, and stores of it."""

import threading
from collections.abc import Callable, Iterator

import pytest
from gcs_service import GcsService
from google.auth.credentials import AnonymousCredentials, Credentials

from backupagent.stores import gcs_session_uploads
from backupagent.stores.gcs import GcsSettings, GcsStore, open_gcs


@pytest.fixture
def service() -> Iterator[GcsService]:
    with GcsService() as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving
        serving.shutdown()
        thread.join(10)
    assert serving.errors == []


@pytest.fixture
def open_one(service: GcsService) -> Iterator[Callable[..., GcsStore]]:
    opened: list[GcsStore] = []

    def open_one(credentials: Credentials | None = None) -> GcsStore:
        """Open the bucket as another process would, which knows of no session."""
        gcs_session_uploads._running.clear()
        opened.append(open_gcs(GcsSettings("bucket", credentials or AnonymousCredentials(), service.url, "p")))
        return opened[-1]

    yield open_one
    gcs_session_uploads._running.clear()
    for store in opened:
        store.close()
