"""The state that etcd-wrapper asks for."""

import threading

import pytest
from sidecar_fakes import run, until

from backupagent.errors import DataDirInvalid
from backupagent.model.restored import Restored
from backupagent.operations.initializer import Action, Initialization
from backupagent.server.initialization import InitializationState, State


class FakeInitialization:
    """Waits until it may go on, then does what it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go_on = threading.Event()
        self.error = error
        self.modes: list[bool] = []
        self.done: list[Initialization[Restored]] = []

    def __call__(self, *, deep: bool) -> Initialization[Restored]:
        self.modes.append(deep)
        self.go_on.wait()
        if self.error is not None:
            raise self.error
        return Initialization(Action.KEPT, "it is valid")

    def state(self) -> InitializationState:
        return InitializationState(self, self.done.append)


def test_from_new_by_progress_to_success_which_is_told_once() -> None:
    async def go() -> None:
        work = FakeInitialization()
        state = work.state()
        assert state.read() is State.NEW
        state.start(deep=True)
        assert (state.read(), state.read()) == (State.PROGRESS, State.PROGRESS)
        work.go_on.set()
        await state.finish()
        assert (state.state, state.state) == (State.SUCCESSFUL, State.SUCCESSFUL)
        assert (state.read(), state.read()) == (State.SUCCESSFUL, State.NEW)
        assert work.modes == [True]
        assert [result.action for result in work.done] == [Action.KEPT]

    run(go())


@pytest.mark.parametrize("error", [DataDirInvalid("broken", endpoint="/data"), ValueError("a bug")])
def test_a_failure_is_told_once_and_may_be_tried_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        work = FakeInitialization(error)
        work.go_on.set()
        state = work.state()
        state.start(deep=False)
        await state.finish()
        assert (state.read(), state.read()) == (State.FAILED, State.NEW)
        assert work.done == []
        work.error = None
        state.start(deep=True)
        await state.finish()
        assert state.read() is State.SUCCESSFUL
        assert work.modes == [False, True]

    run(go())
    assert "initialization failed" in caplog.text
    assert str(error) in caplog.text


def test_one_at_a_time_and_not_again_before_its_result_was_read() -> None:
    async def go() -> None:
        work = FakeInitialization()
        state = work.state()
        state.start(deep=True)
        state.start(deep=False)
        await until(lambda: work.modes)
        work.go_on.set()
        await state.finish()
        state.start(deep=False)
        assert state.read() is State.SUCCESSFUL
        assert work.modes == [True]

    run(go())


def test_nothing_to_finish() -> None:
    run(FakeInitialization().state().finish())
