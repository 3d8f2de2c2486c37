"""Fixtures of the contract tests: an empty store of every kind, one server of each kind for all of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import PARAMS, STORES

from backupagent.stores.base import ObjectStore
from backupagent.testing.servers import MinioServer


@pytest.fixture(scope="session")
def minio(server_binary: Callable[[str], Path]) -> Iterator[MinioServer]:
    with MinioServer(binary=server_binary("minio")) as server:
        yield server


@pytest.fixture(params=PARAMS)
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """An empty store of every kind."""
    with STORES[request.param](request) as opened:
        yield opened
