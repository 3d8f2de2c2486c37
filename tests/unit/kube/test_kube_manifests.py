"""Documents that are written."""

from datetime import UTC, datetime, timedelta, timezone

from backupagent.kube.manifests import config_map, event, lease_patch, micro_timestamp, timestamp
from backupagent.kube.resources import SEEDS, SHOOTS, Document

AT = datetime(2026, 11, 23, 20, 41, 7, 123456, UTC)
SHOOT = SHOOTS.stub("demo", "garden-dev")
SHOOT["metadata"]["uid"] = "u1"


def told(about: Document = SHOOT, reason: str = "Copied", message: str = "12 snapshots", **more: object) -> Document:
    return event(about, **{"reason": reason, "message": message, "at": AT, "component": "backupagent", **more})  # type: ignore[arg-type]


def test_an_event() -> None:
    document = dict(told(warning=True))
    name = document["metadata"]["name"]
    assert name.startswith("demo.")
    assert document == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "garden-dev"},
        "involvedObject": {
            "apiVersion": "core.gardener.cloud/v1beta1",
            "kind": "Shoot",
            "namespace": "garden-dev",
            "name": "demo",
            "uid": "u1",
        },
        "reason": "Copied",
        "message": "12 snapshots",
        "type": "Warning",
        "source": {"component": "backupagent"},
        "reportingComponent": "backupagent",
        "firstTimestamp": "2026-11-23T20:41:07Z",
        "lastTimestamp": "2026-11-23T20:41:07Z",
        "count": 1,
    }


def test_the_name_of_an_event_depends_on_object_reason_and_message_alone() -> None:
    def name(*arguments: object, **more: object) -> str:
        return str(told(*arguments, **more)["metadata"]["name"])  # type: ignore[arg-type]

    other = SHOOTS.stub("demo", "garden-dev")
    other["metadata"]["uid"] = "u2"
    assert name(at=AT + timedelta(days=1), warning=True) == name()
    assert len({name(), name(other), name(reason="Lost"), name(message="13 snapshots")}) == 4


def test_an_event_counts_on_from_the_earlier_one() -> None:
    first = told()
    second = told(at=AT + timedelta(seconds=5), earlier=first)
    assert (second["count"], second["firstTimestamp"], second["lastTimestamp"]) == (
        2,
        "2026-11-23T20:41:07Z",
        "2026-11-23T20:41:12Z",
    )


def test_an_event_about_an_object_without_a_namespace_lies_in_default() -> None:
    document = told(SEEDS.stub("seed-a"))
    assert document["metadata"]["namespace"] == "default"
    assert document["involvedObject"]["namespace"] == ""


def test_an_event_keeps_to_the_limits() -> None:
    long = SHOOTS.stub("s" * 253, "n")
    document = told(long, reason="R" * 300, message="ä" * 1000)
    assert len(document["metadata"]["name"]) == 253
    assert len(document["reason"]) == 128
    assert document["message"] == "ä" * 512
    assert document["metadata"]["name"] != told(long, reason="R" * 300, message="ä" * 1001)["metadata"]["name"]


def test_a_config_map() -> None:
    assert config_map("r", "n", {"a": "1"}, labels={"l": "v"}) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "r", "namespace": "n", "labels": {"l": "v"}},
        "data": {"a": "1"},
    }
    assert "labels" not in config_map("r", "n", {})["metadata"]


def test_a_lease_patch_holds_only_what_is_given() -> None:
    assert lease_patch() == {}
    assert lease_patch(holder="42") == {"spec": {"holderIdentity": "42"}}
    assert lease_patch(renewed=AT, annotations={"a": None}, resource_version="7") == {
        "metadata": {"annotations": {"a": None}, "resourceVersion": "7"},
        "spec": {"renewTime": "2026-11-23T20:41:07.123456Z"},
    }


def test_times_are_utc() -> None:
    berlin = AT.astimezone(timezone(timedelta(hours=1)))
    assert timestamp(berlin) == "2026-11-23T20:41:07Z"
    assert micro_timestamp(berlin) == "2026-11-23T20:41:07.123456Z"
