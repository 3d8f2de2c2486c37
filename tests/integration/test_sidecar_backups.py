"""A real sidecar beside a real etcd: what gets into the store, what it answers, what it tells Kubernetes."""

from pathlib import Path

import pytest
from sidecar_fixtures import Find, MakePair, backed_up, make_pair, pair, tree
from sidecar_pair import MEMBER, NAMESPACE, Pair, until

from backupagent.kube.manifests import lease_patch
from backupagent.kube.resources import LEASES, NAMESPACES
from backupagent.model.restored import ANNOTATION, decode_restored
from backupagent.testing.kube_servers import KubeApiServer

__all__ = ["backed_up", "make_pair", "pair"]  # fixtures

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

FULL_AND_DELTA = 2


# ---- routes


def test_snapshots_on_request(pair: Pair) -> None:
    pair.start()
    assert pair.sidecar.json("/snapshot/delta") is None
    pair.put("a")
    delta = pair.sidecar.json("/snapshot/delta", "POST")
    created = delta.pop("createdOn")
    assert delta == {
        "immutabilityExpriyTime": "0001-01-01T00:00:00Z", "versionID": None, "kind": "Incr", "snapDir": "",
        "snapName": pair.names()[-1], "prefix": "", "compressionSuffix": ".gz", "startRevision": 2, "lastRevision": 2,
        "isChunk": False, "isFinal": False,
    }  # fmt: skip
    assert created.endswith("Z")
    latest = pair.sidecar.json("/snapshot/latest")
    assert [
        latest["fullSnapshot"]["snapName"],
        *(each["snapName"] for each in latest["deltaSnapshots"]),
    ] == pair.names()
    assert latest["deltaSnapshots"][0] == delta | {
        "prefix": "v2",
        "createdOn": latest["deltaSnapshots"][0]["createdOn"],
    }
    full = pair.sidecar.json("/snapshot/full")
    assert (full["kind"], full["startRevision"], full["lastRevision"], full["isFinal"]) == ("Full", 0, 2, False)
    assert pair.sidecar.json("/snapshot/latest")["deltaSnapshots"] is None
    assert pair.sidecar.ask("/snapshot/full?final=perhaps")[0] == 400
    assert len(pair.chains()) == 2


def test_a_final_snapshot_is_the_same_however_often_it_is_asked_for(pair: Pair) -> None:
    pair.start()
    pair.put("a")
    first = pair.sidecar.json("/snapshot/full?final=true")
    assert first["isFinal"]
    assert first["snapName"].endswith(".gz.final")
    assert pair.sidecar.json("/snapshot/full?final=true", "POST")["snapName"] == first["snapName"]
    pair.sidecar.restart()
    until(pair.healthy, "backups")
    assert pair.sidecar.json("/snapshot/full?final=true")["snapName"] == first["snapName"]
    assert pair.names() == [first["snapName"]]
    pair.put("b")
    again = pair.sidecar.json("/snapshot/full?final=true")
    assert (again["lastRevision"], again["isFinal"]) == (3, True)
    assert pair.names() == [again["snapName"]]


def test_a_full_follows_a_final_one_once_something_was_written(pair: Pair) -> None:
    pair.start()
    final = pair.sidecar.json("/snapshot/full?final=true")
    pair.put("a")
    pair.sidecar.restart()
    until(lambda: pair.chains()[0].full.name != final["snapName"], "a new full")
    assert pair.chains()[0].full.last_revision == 2


def test_header_and_body_come_together(pair: Pair) -> None:
    pair.start()
    for _ in range(100):
        status, config = pair.sidecar.ask_at_once("/config")
        assert status == 200
        assert len(config) > 300
        assert pair.sidecar.ask_at_once("/initialization/status") == (200, b"New")


def test_nothing_is_taken_while_there_is_no_etcd(pair: Pair) -> None:
    pair.sidecar.start()
    assert pair.sidecar.ask("/healthz") == (503, b'{"health": false}')
    for route in ("/snapshot/full", "/snapshot/delta"):
        assert pair.sidecar.ask(route)[0] == 500
    assert pair.sidecar.json("/snapshot/latest") == {"fullSnapshot": None, "deltaSnapshots": None}


# ---- backups


def test_deltas_come_by_themselves(pair: Pair) -> None:
    pair.arrange("--delta-period=1s")
    pair.start()
    pair.put("a")
    until(lambda: len(pair.names()) == 2, "a delta")
    pair.put("b")
    until(lambda: len(pair.names()) == 3, "another one")
    assert [delta.start_revision for delta in pair.chains()[0].deltas] == [2, 3]


def test_the_last_writes_are_saved_when_the_sidecar_stops(pair: Pair) -> None:
    pair.start()
    pair.put("a", "b")
    pair.sidecar.stop()
    assert pair.chains()[0].last_revision == 3
    assert "Traceback" not in pair.sidecar.log


def test_a_sidecar_whose_etcd_is_gone_stops_soon(pair: Pair) -> None:
    pair.start()
    pair.put("a")
    pair.etcd.kill()
    pair.sidecar.stop()
    assert "no last delta" in pair.sidecar.log
    assert pair.chains()[0].last_revision == 1


def test_a_sidecar_that_starts_again_goes_on_with_the_chain(pair: Pair) -> None:
    pair.start()
    pair.put("a")
    pair.sidecar.kill()
    pair.put("b")
    pair.sidecar.start()
    until(lambda: len(pair.names()) == FULL_AND_DELTA, "the chain goes on")
    assert pair.chains()[0].last_revision == 3
    assert len(pair.chains()) == 1


def test_an_etcd_that_comes_back_is_backed_up_again(pair: Pair) -> None:
    pair.arrange("--delta-period=1s")
    pair.start()
    pair.etcd.kill()
    until(lambda: not pair.healthy(), "it is noticed")
    pair.etcd.start()
    pair.put("a")
    until(lambda: pair.chains()[0].last_revision == 2, "a delta")
    until(pair.healthy, "it says so")  # the delta is seen before its sidecar has heard that it is stored


def test_an_etcd_behind_its_backups_writes_nothing_among_them(
    backed_up: Pair, make_pair: MakePair, tmp_path: Path
) -> None:
    other = make_pair((tmp_path / "elsewhere").as_uri())
    other.start()
    other.stop()  # a valid volume at revision 1, as an old one that came back
    other.store = backed_up.store
    other.arrange()
    before = tree(tmp_path / "store")
    assert other.initialize() == "Successful"
    config = other.sidecar.ask("/config")[1]
    other.etcd.config.write_bytes(config)
    other.etcd.start()
    until(lambda: "is at revision 1" in other.sidecar.log, "it is told")
    assert other.sidecar.ask("/healthz")[0] == 503
    assert other.sidecar.ask("/snapshot/full?final=true")[0] == 500
    assert tree(tmp_path / "store") == before


# ---- Leases


def test_leases_are_written_even_when_kubernetes_comes_later(
    backed_up: Pair, make_pair: MakePair, server_binary: Find, tmp_path: Path
) -> None:
    for name in ("kube-apiserver", "etcd"):
        server_binary(name)
    with KubeApiServer() as api, api.client() as kube:
        kube.create(NAMESPACES, NAMESPACES.stub(NAMESPACE))
        for name in (MEMBER, "full", "delta"):
            kube.create(LEASES, LEASES.stub(name, NAMESPACE))
        config = api.kubeconfig(tmp_path)
        api.stop()
        fresh = make_pair()
        fresh.arrange(
            f"--kubeconfig={config}", "--member-lease", "--snapshot-leases", "--full-lease=full", "--delta-lease=delta",
            "--heartbeat=1s",
        )  # fmt: skip
        fresh.start()
        assert set(fresh.keys()) == {"a", "b", "c"}, "nobody waits for Kubernetes"
        fresh.sidecar.kill()  # what was not told yet is told by the next one
        fresh.sidecar.start()
        api.start()

        def spec(name: str) -> dict[str, str]:
            return dict(kube.get(LEASES, name, NAMESPACE)["spec"])

        def annotations() -> dict[str, str]:
            return dict(kube.get(LEASES, MEMBER, NAMESPACE)["metadata"].get("annotations", {}))

        until(lambda: ANNOTATION in annotations(), "the restore is told")
        restored = decode_restored(annotations()[ANNOTATION], MEMBER)
        assert (restored.revision, restored.full, restored.deltas) == (4, backed_up.names()[0], 1)
        assert restored.matches_manifest is not None
        until(lambda: spec(MEMBER).get("holderIdentity"), "the member's Lease")
        with fresh.client() as client:
            status = client.status()
        assert spec(MEMBER)["holderIdentity"] == f"{status.member_id:x}:{status.cluster_id:x}:Leader"
        assert annotations()["member.etcd.gardener.cloud/tls-enabled"] == "false"
        assert not list(fresh.volume.glob("*.restored"))

        kube.patch(LEASES, "full", NAMESPACE, lease_patch(holder="2"))
        fresh.put("d")
        fresh.sidecar.json("/snapshot/delta")
        until(lambda: spec("delta").get("holderIdentity") == "5", "the deltas' Lease")
        fresh.sidecar.json("/snapshot/full")
        until(lambda: spec("full").get("holderIdentity") == "5", "the fulls' Lease")
