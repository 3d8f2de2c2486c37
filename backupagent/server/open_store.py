"""The store, opened once for all snapshots."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from backupagent.errors import EtcdError
from backupagent.snapstore import SnapStore


@dataclass
class _Opened:
    manager: AbstractContextManager[SnapStore]
    snapstore: SnapStore
    users: int = 0
    retired: bool = False


class OpenStore:
    """Opens a store when it is first used and keeps it open; after a failure the next user gets a new one.

    An SDK's client costs 95 ms of processor time and memory that does not come back whole: a delta each second let a
    sidecar grow by 1.7 MiB a delta (boto3, 2026-11-23). A new one reads the credentials anew, which may have been the
    reason of the failure. Thread-safe.

    Args:
        opener: Opens the store.
    """

    def __init__(self, opener: Callable[[], AbstractContextManager[SnapStore]]) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._current: _Opened | None = None

    @contextmanager
    def use(self) -> Iterator[SnapStore]:
        """Use the store.

        Raises:
            StoreError: it cannot be opened.
            ConfigError: its URI or its credentials are wrong.
        """
        opened = self._enter()
        try:
            yield opened.snapstore
        except EtcdError:
            raise  # not the store's fault
        except BaseException:
            self._retire(opened)
            raise
        finally:
            self._leave(opened)

    def close(self) -> None:
        """Close it when its last user has left; whoever comes later opens a new one."""
        with self._lock:
            opened = self._current
            if opened is not None:
                opened.users += 1
        if opened is not None:
            self._retire(opened)
            self._leave(opened)

    def _enter(self) -> _Opened:
        with self._lock:
            if self._current is None:
                manager = self._opener()
                self._current = _Opened(manager, manager.__enter__())
            self._current.users += 1
            return self._current

    def _retire(self, opened: _Opened) -> None:
        with self._lock:
            opened.retired = True
            if self._current is opened:
                self._current = None

    def _leave(self, opened: _Opened) -> None:
        with self._lock:
            opened.users -= 1
            last = opened.retired and opened.users == 0
        if last:
            opened.manager.__exit__(None, None, None)
