"""Real servers for all tests of this folder, and a place of its own for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from minio_buckets import MinioBuckets
from place import Place

from backupagent.testing.servers import MinioServer


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session")
def minio(server_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioBuckets]:
    with MinioServer(binary=server_binary("minio")) as server:
        yield MinioBuckets(server, tmp_path_factory.mktemp("credentials"))
