"""What is written on Leases, and that it is written in the end; Kubernetes is made up."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from backupagent.clock import FakeClock
from backupagent.errors import EtcdUnavailable, KubeConflict, KubeNotFound, KubeUnavailable
from backupagent.etcd.client import Status
from backupagent.kube.resources import LEASES, Resource
from backupagent.model.restored import ANNOTATION, Restored, encode_restored
from backupagent.operations.report import SnapshotReport
from backupagent.server import leases as module
from backupagent.server.leases import TLS_ANNOTATION, LeaseNames, Leases

NAMES = LeaseNames("shoot--dev--demo", "etcd-main-0", "etcd-main-full-snap", "etcd-main-delta-snap")
NOW = "2026-01-01T00:00:00.000000Z"
FULL = "Full-00000000-00000900-1767222000.gz"
FULL_TAKEN = "2025-12-31T23:00:00.000000Z"
RESTORED = Restored(
    revision=900, hash_kv=7, compact_revision=-1, full=FULL, deltas=2, matches_manifest=True, seconds=1.5, at="now"
)


class FakeKube:
    """The Leases of one namespace.

    Attributes:
        leases: By name.
        failures: Raised by the next calls, one each.
        calls: What was called.
    """

    def __init__(self) -> None:
        self.leases: dict[str, dict[str, Any]] = {
            name: {"metadata": {"name": name, "resourceVersion": "1"}, "spec": {}}
            for name in (NAMES.member, NAMES.full, NAMES.delta)
        }
        self.failures: list[Exception] = []
        self.calls: list[str] = []

    def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        return self._lease("get", resource, name, namespace)

    def patch(self, resource: Resource, name: str, namespace: str, changes: dict[str, Any]) -> dict[str, Any]:
        lease = self._lease("patch", resource, name, namespace)
        wanted = changes.get("metadata", {}).get("resourceVersion")
        if wanted not in {None, lease["metadata"]["resourceVersion"]}:
            raise KubeConflict("changed", what="patch")
        lease["spec"] = lease["spec"] | changes.get("spec", {})
        annotations = lease["metadata"].setdefault("annotations", {})
        annotations.update(changes.get("metadata", {}).get("annotations", {}))
        return lease

    def _lease(self, verb: str, resource: Resource, name: str, namespace: str) -> dict[str, Any]:
        assert (resource, namespace) == (LEASES, NAMES.namespace)
        self.calls.append(f"{verb} {name}")
        if self.failures:
            raise self.failures.pop(0)
        if name not in self.leases:
            raise KubeNotFound("no such Lease", what=f"{verb} {name}")
        return self.leases[name]


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


def report(name: str | None, *, kind: str = "Incr", last: int = 950) -> SnapshotReport:
    return SnapshotReport(
        name=name, names=(), kind=kind, final=False, start_revision=0, last_revision=last, events=0, note="",
        manifest={}, seconds=0.1, phases=(),
    )  # fmt: skip


def telling(kube: FakeKube, *news: Callable[[Leases], None], names: LeaseNames = NAMES) -> bool:
    """Give the news, then try once to tell them."""

    async def run() -> bool:
        leases = Leases(kube, names, FakeClock())
        for give in news:
            give(leases)
        return await leases.tell_all()

    return asyncio.run(run())


# ---- snapshots


def test_a_full(kube: FakeKube) -> None:
    assert telling(kube, lambda leases: leases.snapshot(report(FULL, kind="Full", last=900)))
    assert kube.leases[NAMES.full]["spec"] == {"holderIdentity": "900", "renewTime": FULL_TAKEN}
    assert kube.leases[NAMES.delta]["spec"] == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [("899", "900"), ("901", "901"), ("", "900"), (None, "900"), ("somebody", "900"), ("9" * 20, "900")],
)
def test_the_revision_of_fulls_is_never_lowered(kube: FakeKube, before: str | None, after: str) -> None:
    kube.leases[NAMES.full]["spec"] = {"holderIdentity": before}
    assert telling(kube, lambda leases: leases.snapshot(report(FULL, kind="Full", last=900)))
    assert kube.leases[NAMES.full]["spec"] == {"holderIdentity": after, "renewTime": FULL_TAKEN}


def test_a_full_that_somebody_else_writes_at_the_same_time_is_written_again(kube: FakeKube) -> None:
    async def run() -> None:
        leases = Leases(kube, NAMES, FakeClock())
        leases.snapshot(report(FULL, kind="Full", last=900))
        kube.failures = []
        original = kube.get

        def get_and_change(resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
            kube.get = original  # type: ignore[method-assign]
            found = {**original(resource, name, namespace)}
            found["metadata"] = dict(found["metadata"])
            kube.leases[NAMES.full]["metadata"]["resourceVersion"] = "2"
            kube.leases[NAMES.full]["spec"] = {"holderIdentity": "2000"}
            return found

        kube.get = get_and_change  # type: ignore[method-assign]
        assert not await leases.tell_all()
        assert await leases.tell_all()

    asyncio.run(run())
    assert kube.leases[NAMES.full]["spec"]["holderIdentity"] == "2000"


def test_a_delta(kube: FakeKube) -> None:
    assert telling(kube, lambda leases: leases.snapshot(report("Incr-00000901-00000950-1767225500.gz")))
    assert kube.leases[NAMES.delta]["spec"] == {"holderIdentity": "950", "renewTime": NOW}


@pytest.mark.parametrize(("before", "after"), [(None, "0"), ("", "0"), ("940", "940")])
def test_nothing_new_renews_the_deltas_lease(kube: FakeKube, before: str | None, after: str) -> None:
    kube.leases[NAMES.delta]["spec"] = {"holderIdentity": before}
    assert telling(kube, lambda leases: leases.snapshot(report(None)))
    assert kube.leases[NAMES.delta]["spec"] == {"holderIdentity": after, "renewTime": NOW}


def test_only_named_leases_are_written(kube: FakeKube) -> None:
    names = LeaseNames(NAMES.namespace, NAMES.member)
    full, delta = report(FULL, kind="Full"), report("Incr-00000901-00000950-1767225500.gz")
    assert telling(kube, lambda leases: leases.snapshot(full), lambda leases: leases.snapshot(delta), names=names)
    assert kube.calls == []


def test_only_the_newest_news_of_a_kind_are_told(kube: FakeKube) -> None:
    reports = [report(f"Incr-00000901-{last:08d}-1767225500.gz", last=last) for last in (910, 920, 930)]
    assert telling(kube, *[lambda leases, one=one: leases.snapshot(one) for one in reports])
    assert kube.calls == [f"patch {NAMES.delta}"]
    assert kube.leases[NAMES.delta]["spec"]["holderIdentity"] == "930"


# ---- a restore


def test_a_restore_is_an_annotation_of_the_member(kube: FakeKube) -> None:
    told: list[bool] = []
    assert telling(kube, lambda leases: leases.restored(RESTORED, lambda: told.append(True)))
    assert kube.leases[NAMES.member]["metadata"]["annotations"] == {ANNOTATION: encode_restored(RESTORED)}
    assert kube.leases[NAMES.member]["spec"] == {}
    assert told == [True]


def test_news_are_told_until_they_are_there(kube: FakeKube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.002)
    kube.failures = [KubeUnavailable("no route", what="patch")] * 3 + [KubeNotFound("none", what="patch"), OSError("?")]

    async def run() -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        leases = Leases(kube, NAMES, FakeClock())
        teller = asyncio.create_task(leases.run())
        leases.restored(RESTORED, lambda: loop.call_soon_threadsafe(told.set))
        await asyncio.wait_for(told.wait(), 30)
        told.clear()
        leases.restored(RESTORED, lambda: loop.call_soon_threadsafe(told.set))
        await asyncio.wait_for(told.wait(), 30)
        teller.cancel()

    asyncio.run(run())
    assert kube.calls == [f"patch {NAMES.member}"] * 7


def test_what_is_told_while_it_changes_is_told_again(kube: FakeKube) -> None:
    async def run() -> None:
        leases = Leases(kube, NAMES, FakeClock())
        loop = asyncio.get_running_loop()
        newer = report("Incr-00000901-00000999-1767225600.gz", last=999)

        def told() -> None:
            asyncio.run_coroutine_threadsafe(give(newer), loop).result(10)

        async def give(news: SnapshotReport) -> None:
            leases.restored(RESTORED, lambda: None)
            leases.snapshot(news)

        leases.restored(RESTORED, told)
        assert not await leases.tell_all()  # there are newer ones
        assert await leases.tell_all()

    asyncio.run(run())
    assert kube.leases[NAMES.delta]["spec"]["holderIdentity"] == "999"


def test_one_lease_that_is_missing_does_not_keep_the_others(kube: FakeKube) -> None:
    del kube.leases[NAMES.member]
    full = report(FULL, kind="Full", last=900)
    assert not telling(
        kube, lambda leases: leases.restored(RESTORED, lambda: None), lambda leases: leases.snapshot(full)
    )
    assert kube.leases[NAMES.full]["spec"]["holderIdentity"] == "900"


def test_a_complaint_is_made_once(kube: FakeKube, caplog: pytest.LogCaptureFixture) -> None:
    kube.failures = [KubeUnavailable("no route", what="patch lease")] * 5 + [
        KubeUnavailable("bad gateway", what="patch")
    ]

    async def run() -> None:
        leases = Leases(kube, NAMES, FakeClock())
        leases.restored(RESTORED, lambda: None)
        for _ in range(6):
            assert not await leases.tell_all()
        assert await leases.tell_all()

    with caplog.at_level(logging.WARNING, logger="backupagent"):
        asyncio.run(run())
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "the restore is not told: patch lease: no route",
        "the restore is not told: patch: bad gateway",
    ]


# ---- the member


def status(*, leader: int = 0xAB, member: int = 0xAB) -> Status:
    return Status("3.5.35", 1, 1, 9, leader, member, 0xCDEF, 1, is_learner=False, errors=())


def renewing(kube: FakeKube, *answers: Status | Exception, tls_peers: bool = False) -> None:
    """Renew once for each answer of etcd."""
    asked = list(answers)

    async def run() -> None:
        enough = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ask() -> Status:
            if not asked:
                loop.call_soon_threadsafe(enough.set)
                raise EtcdUnavailable("no more")
            answer = asked.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        task = asyncio.create_task(Leases(kube, NAMES, FakeClock()).renew(0.001, ask, tls_peers=tls_peers))
        await asyncio.wait_for(enough.wait(), 30)
        task.cancel()

    asyncio.run(run())


@pytest.mark.parametrize(("leader", "role"), [(0xAB, "Leader"), (0xCD, "Member")])
@pytest.mark.parametrize("tls_peers", [True, False])
def test_the_member_says_who_it_is(kube: FakeKube, leader: int, role: str, *, tls_peers: bool) -> None:
    renewing(kube, status(leader=leader), tls_peers=tls_peers)
    lease = kube.leases[NAMES.member]
    assert lease["spec"] == {"holderIdentity": f"ab:cdef:{role}", "renewTime": NOW}
    assert lease["metadata"]["annotations"] == {TLS_ANNOTATION: "true" if tls_peers else "false"}


def test_a_member_without_etcd_or_leader_is_not_renewed(kube: FakeKube) -> None:
    renewing(kube, EtcdUnavailable("refused"), status(leader=0), EtcdUnavailable("refused"))
    assert kube.calls == []


def test_renewing_outlives_kubernetes(kube: FakeKube) -> None:
    kube.failures = [KubeUnavailable("no route", what="patch"), KubeNotFound("none", what="patch")]
    renewing(kube, status(), status(), status())
    assert kube.leases[NAMES.member]["spec"]["holderIdentity"] == "ab:cdef:Leader"
    assert kube.calls == [f"patch {NAMES.member}"] * 3
