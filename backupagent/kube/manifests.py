"""Documents that are written, made of plain values: nothing here talks to an API server."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from backupagent.kube.resources import CONFIG_MAPS, EVENTS, Document

LONGEST_NAME = 253
"""Characters of an object's name (RFC 1123 subdomain)."""

LONGEST_EVENT_MESSAGE = 1024
"""Bytes of an Event's message.

Source:
    ``NoteLengthLimit`` of Kubernetes v1.36.3, pkg/apis/core/validation/events.go. It binds events.k8s.io/v1 only;
    core/v1 would take more than anybody shows.
"""

LONGEST_REASON = 128
"""Characters of an Event's reason (``ReasonLengthLimit``, same file)."""

NAMESPACE_OF_EVENTS = "default"
"""Where Events about objects without a namespace lie."""


def event(  # noqa: PLR0913 - each is a property of an Event
    about: Document,
    *,
    reason: str,
    message: str,
    at: datetime,
    component: str,
    warning: bool = False,
    earlier: Document | None = None,
) -> dict[str, Any]:
    """Return a core/v1 Event.

    Its name is made of the object, the reason and the message, so that telling the same again meets the same Event::

        name = event(...)["metadata"]["name"]
        kube.apply(EVENTS, event(..., earlier=kube.find(EVENTS, name, namespace)))

    Args:
        about: The object that it is about, with its metadata.
        reason: Why, one word in CamelCase.
        message: What happened, for people; cut where an Event may not be longer.
        at: When.
        component: Who tells it.
        warning: Whether it is a warning.
        earlier: The Event of that name, when there is one: this one counts on from it.
    """
    metadata = about["metadata"]
    namespace = metadata.get("namespace", "")
    reason = reason[:LONGEST_REASON]
    text = message.encode()[:LONGEST_EVENT_MESSAGE].decode(errors="ignore")
    identity = "\0".join([metadata.get("uid", ""), metadata["name"], reason, message])
    suffix = hashlib.sha256(identity.encode()).hexdigest()[:16]
    name = f"{metadata['name'][: LONGEST_NAME - len(suffix) - 1]}.{suffix}"
    before = earlier or {}
    return EVENTS.stub(name, namespace or NAMESPACE_OF_EVENTS) | {
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "namespace": namespace,
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
        },
        "reason": reason,
        "message": text,
        "type": "Warning" if warning else "Normal",
        "source": {"component": component},
        "reportingComponent": component,
        "firstTimestamp": before.get("firstTimestamp") or timestamp(at),
        "lastTimestamp": timestamp(at),
        "count": int(before.get("count") or 0) + 1,
    }


def config_map(
    name: str, namespace: str, data: Mapping[str, str], *, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a ConfigMap.

    Args:
        name: Its name.
        namespace: Its namespace.
        data: What it holds; 1 MiB in all at most.
        labels: Its labels.
    """
    document = CONFIG_MAPS.stub(name, namespace) | {"data": dict(data)}
    if labels:
        document["metadata"]["labels"] = dict(labels)
    return document


def lease_patch(
    *,
    holder: str | None = None,
    renewed: datetime | None = None,
    annotations: Mapping[str, str | None] | None = None,
    resource_version: str = "",
) -> dict[str, Any]:
    """Return a merge patch of a Lease; what is not given stays as it is.

    Args:
        holder: ``spec.holderIdentity``: a member's id and role, or a revision.
        renewed: ``spec.renewTime``.
        annotations: Annotations to set, or with None to remove.
        resource_version: The version that was read: the patch is refused (``KubeConflict``) when it is not the newest.
    """
    spec = {} if holder is None else {"holderIdentity": holder}
    if renewed is not None:
        spec["renewTime"] = micro_timestamp(renewed)
    metadata: dict[str, Any] = {"annotations": dict(annotations)} if annotations else {}
    if resource_version:
        metadata["resourceVersion"] = resource_version
    return {name: part for name, part in (("metadata", metadata), ("spec", spec)) if part}


def timestamp(at: datetime) -> str:
    """Return a moment as metav1.Time writes it: whole seconds, UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def micro_timestamp(at: datetime) -> str:
    """Return a moment as metav1.MicroTime, the type of a Lease's times, writes it: microseconds, UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
