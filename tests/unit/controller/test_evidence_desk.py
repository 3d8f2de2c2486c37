"""Looks into buckets: one at a time for each Shoot, an answer only to the question that was asked."""

import base64
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from garden_kube import GardenKube

from backupagent.cancel import Cancel
from backupagent.controller.evidence import Desk, Evidence, Inspector, Question
from backupagent.errors import Cancelled
from backupagent.kube.resources import SECRETS
from backupagent.model.gardener import BackupBucket, SecretRef, Shoot


class LaterExecutor(Executor):
    """Runs what was submitted when it is told to."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[..., Any], tuple[Any, ...], Future[Any]]] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **_kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((function, args, future))
        return future

    def run(self) -> int:
        """Run everything; return how much it was."""
        waiting, self._waiting = self._waiting, []
        for function, args, future in waiting:
            try:
                future.set_result(function(*args))
            except Exception as error:  # noqa: BLE001 - as a real executor does
                future.set_exception(error)
        return len(waiting)


SHOOT = Shoot(namespace="n", name="demo", technical_id="t", status_uid="u")
FIRST, SECOND = Question(shoot=SHOOT), Question(shoot=SHOOT, settled=True)


@pytest.fixture
def pool() -> LaterExecutor:
    return LaterExecutor()


def test_an_answer_is_given_once_and_its_shoot_is_looked_at_again(pool: LaterExecutor) -> None:
    answered: list[str] = []
    desk = Desk(lambda asked: Evidence(first_backup=str(asked.settled)), answered.append, pool)
    assert desk.ask("k", FIRST) is None
    assert desk.ask("k", FIRST) is None
    assert pool.run() == 1
    assert answered == ["k"]
    assert desk.ask("k", FIRST) == Evidence(first_backup="False")
    assert desk.ask("k", FIRST) is None
    assert pool.run() == 1


def test_an_answer_to_another_question_is_thrown_away(pool: LaterExecutor) -> None:
    desk = Desk(lambda asked: Evidence(first_backup=str(asked.settled)), lambda _key: None, pool)
    desk.ask("k", FIRST)
    pool.run()
    assert desk.ask("k", SECOND) is None
    assert pool.run() == 1
    assert desk.ask("k", SECOND) == Evidence(first_backup="True")


def test_shoots_do_not_wait_for_each_other(pool: LaterExecutor) -> None:
    desk = Desk(lambda _asked: Evidence(), lambda _key: None, pool)
    desk.ask("a", FIRST)
    desk.ask("b", FIRST)
    assert pool.run() == 2


def test_a_look_that_was_stopped_is_told(pool: LaterExecutor) -> None:
    def look(_asked: Question) -> Evidence:
        raise Cancelled("stopped by SIGTERM")

    desk = Desk(look, lambda _key: None, pool)
    desk.ask("k", FIRST)
    pool.run()
    with pytest.raises(Cancelled):
        desk.ask("k", FIRST)


def test_an_answer_that_nobody_will_take_is_dropped(pool: LaterExecutor) -> None:
    desk = Desk(lambda _asked: Evidence(first_backup="old"), lambda _key: None, pool)
    desk.ask("k", FIRST)
    pool.run()
    desk.forget("k")
    assert desk.ask("k", FIRST) is None


# ---- credentials


def look(kube: GardenKube, bucket: BackupBucket) -> str:
    return Inspector(kube, Cancel()).look(Question(shoot=SHOOT, source=bucket)).unreadable


REF = SecretRef(namespace="garden", name="generated")


def test_a_bucket_without_a_secret_is_not_looked_at_with_other_credentials() -> None:
    told = look(GardenKube(), BackupBucket(name="b", provider="S3"))
    assert "BackupBucket b: its credentials do not lie in a Secret" in told


def test_a_bucket_whose_secret_is_missing() -> None:
    assert "get secrets" in look(GardenKube(), BackupBucket(name="b", provider="S3", secret=REF))


@pytest.mark.parametrize("value", ["***hunter2***", base64.b64encode(b"\xffhunter2").decode(), 5, None])
def test_a_secret_that_is_no_text_is_not_shown(value: Any) -> None:
    kube = GardenKube()
    kube.put(SECRETS, {**SECRETS.stub("generated", "garden"), "data": {"secretAccessKey": value}})
    told = look(kube, BackupBucket(name="b", provider="S3", secret=REF))
    assert told == "BackupBucket b: the Secret generated holds a field that is no text"


def test_a_provider_that_nobody_knows() -> None:
    kube = GardenKube()
    kube.put(SECRETS, {**SECRETS.stub("generated", "garden"), "data": {}})
    told = look(kube, BackupBucket(name="b", provider="punchcards", secret=REF))
    assert "storage provider 'punchcards' is not supported" in told
