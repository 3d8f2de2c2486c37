"""One store for many snapshots."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.errors import ConfigError
from backupagent.server.etcd_config import read_config
from backupagent.server.open_store import OpenStore
from backupagent.server.sidecar import Sidecar
from backupagent.settings import ServerSettings, SnapshotChoice
from backupagent.snapstore import SnapStore
from backupagent.stores.memory import MemoryStore


class Opener:
    """Opens stores, and remembers what became of them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.refuses = False
        self.count = 0

    @contextmanager
    def __call__(self) -> Iterator[SnapStore]:
        if self.refuses:
            raise ConfigError("no credentials")
        self.count += 1
        number = self.count
        self.events.append(f"opened {number}")
        yield SnapStore(MemoryStore(f"store-{number}"), "p")
        self.events.append(f"closed {number}")


@pytest.fixture
def opener() -> Opener:
    return Opener()


def name_of(store: OpenStore) -> str:
    return store.get().display


def test_it_is_opened_once_and_closed_at_the_end(opener: Opener) -> None:
    store = OpenStore(opener)
    assert opener.events == []
    assert {name_of(store) for _ in range(3)} == {"memory://store-1"}
    store.close()
    store.close()
    assert opener.events == ["opened 1", "closed 1"]
    assert name_of(store) == "memory://store-2"


def test_a_store_that_cannot_be_opened_is_tried_again(opener: Opener) -> None:
    store = OpenStore(opener)
    opener.refuses = True
    with pytest.raises(ConfigError):
        store.get()
    opener.refuses = False
    assert name_of(store) == "memory://store-1"


def test_many_threads_share_one(opener: Opener) -> None:
    store = OpenStore(opener)
    together = threading.Barrier(8)
    found: list[str] = []

    def use() -> None:
        together.wait()
        found.append(name_of(store))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["memory://store-1"] * 8
    assert opener.events == ["opened 1"]


def test_a_sidecar_opens_its_store_once(opener: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "initial-cluster: m=http://127.0.0.1:2380"
    settings = ServerSettings(store="memory://m/p", data_dir=tmp_path / "new.etcd")
    sidecar = Sidecar(settings, read_config(text, pod="m", where="etcd.conf.yaml"), None, Cancel())
    used: list[str] = []
    monkeypatch.setattr(wiring, "open_snapstore", lambda *_arguments, **_options: opener())
    monkeypatch.setattr(wiring, "take_snapshot", lambda snapstore, *_rest: used.append(snapstore.display))
    for kind in SnapshotChoice:
        sidecar._take(kind, False)
    assert sidecar._listed() is None
    assert used == ["memory://store-1"] * 2
    assert opener.events == ["opened 1"]
