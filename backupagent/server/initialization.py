"""The state of an initialization, by the protocol of etcd-wrapper.

``New`` until somebody starts one, ``Progress`` while it runs, then ``Successful`` or ``Failed``. Reading one of the
last two makes it ``New`` again: the reader has to remember what it saw. Source: etcd-backup-restore,
pkg/server/httpAPI.go at debd95b.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from backupagent.errors import BackupAgentError
from backupagent.model.restored import Restored
from backupagent.operations.initializer import Initialization
from backupagent.server.threads import in_thread

_log = logging.getLogger(__name__)


class State(StrEnum):
    """What ``/initialization/status`` answers."""

    NEW = "New"
    PROGRESS = "Progress"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"


class RunsInitialization(Protocol):
    """Makes the data directory ready; runs in a thread."""

    def __call__(self, *, deep: bool) -> Initialization[Restored]:
        """Make it ready.

        Raises:
            BackupAgentError: it could not.
        """
        ...


class InitializationState:
    """One initialization at a time; used on the event loop only.

    Args:
        initialize: Does the work.
        done: Called on the loop when it was successful.
    """

    def __init__(self, initialize: RunsInitialization, done: Callable[[Initialization[Restored]], None]) -> None:
        self._initialize = initialize
        self._done = done
        self._state = State.NEW
        self._running: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        """The state, without the effect of reading it."""
        return self._state

    def start(self, *, deep: bool) -> None:
        """Begin, unless one runs or its result was not read yet."""
        if self._state is State.NEW:
            self._state = State.PROGRESS
            self._running = asyncio.create_task(self._run(deep=deep))

    def read(self) -> State:
        """Return the state; a result is told once."""
        state = self._state
        if state in {State.SUCCESSFUL, State.FAILED}:
            self._state = State.NEW
        return state

    async def finish(self) -> None:
        """Wait for the one that runs, if any."""
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self, *, deep: bool) -> None:
        _log.info("initialization begins", extra={"fields": {"mode": "full" if deep else "sanity"}})
        try:
            result = await in_thread(self._initialize, deep=deep)
        except BackupAgentError as error:
            _log.error("initialization failed: %s; %s", error, error.hint)
            self._state = State.FAILED
            return
        except Exception:  # noqa: BLE001 - the wrapper must hear of it, whatever it is
            _log.exception("initialization failed")
            self._state = State.FAILED
            return
        fields = {"action": result.action.value, "why": result.reason, "moved_to": result.moved_to}
        _log.info("initialization is done", extra={"fields": fields})
        self._state = State.SUCCESSFUL
        self._done(result)
