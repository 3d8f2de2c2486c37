"""Fixtures of the contract tests: an empty store of every kind, one server of each kind for all of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import PARAMS, STORES, UNPROVEN

from backupagent.stores.base import ObjectStore
from backupagent.testing.servers import MinioServer
from backupagent.testing.store_servers import AzuriteServer, FakeGcsServer


@pytest.fixture(scope="session")
def minio(server_binary: Callable[[str], Path]) -> Iterator[MinioServer]:
    with MinioServer(binary=server_binary("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite(server_binary: Callable[[str], Path]) -> Iterator[AzuriteServer]:
    with AzuriteServer(binary=server_binary("azurite-blob")) as server:
        yield server


@pytest.fixture(scope="session")
def fake_gcs(server_binary: Callable[[str], Path]) -> Iterator[FakeGcsServer]:
    with FakeGcsServer(binary=server_binary("fake-gcs-server")) as server:
        yield server


@pytest.fixture(params=PARAMS)
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """An empty store of every kind."""
    unproven = UNPROVEN.get((request.param, request.node.originalname))
    if unproven:
        pytest.skip(unproven)
    with STORES[request.param](request) as opened:
        yield opened
