"""Real stores, and proxies in front of them: one server of each kind for all tests of this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wire_copies import make_history
from wire_stores import MAKERS, Store, fill

from backupagent.testing.servers import MinioServer
from backupagent.testing.store_servers import AzuriteServer, FakeGcsServer
from backupagent.testing.toxiproxy import Toxiproxy

Find = Callable[[str], Path]


@pytest.fixture(scope="session")
def minio(server_binary: Find) -> Iterator[MinioServer]:
    with MinioServer(binary=server_binary("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite(server_binary: Find) -> Iterator[AzuriteServer]:
    with AzuriteServer(binary=server_binary("azurite-blob")) as server:
        yield server


@pytest.fixture(scope="session")
def fake_gcs(server_binary: Find) -> Iterator[FakeGcsServer]:
    with FakeGcsServer(binary=server_binary("fake-gcs-server")) as server:
        yield server


@pytest.fixture(scope="session")
def toxiproxy(server_binary: Find) -> Iterator[Toxiproxy]:
    with Toxiproxy(binary=server_binary("toxiproxy")) as server:
        yield server


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Store]:
    """Make an empty bucket of a provider, which is named by its scheme."""

    def make(scheme: str) -> Store:
        fixture, maker = MAKERS[scheme]
        return maker(request.getfixturevalue(fixture), tmp_path / "credentials")

    return make


@pytest.fixture(scope="session")
def history() -> Path:
    return make_history()


@pytest.fixture(scope="session")
def source(
    request: pytest.FixtureRequest, history: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Store]:
    """Give a provider's bucket that holds the history, filled once and only read."""
    made: dict[str, Store] = {}

    def find(scheme: str) -> Store:
        if scheme not in made:
            fixture, maker = MAKERS[scheme]
            made[scheme] = maker(request.getfixturevalue(fixture), tmp_path_factory.mktemp("credentials"))
            fill(made[scheme], history)
        return made[scheme]

    return find
