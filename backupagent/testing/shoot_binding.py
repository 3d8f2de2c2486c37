"""What an update of ``shoots/binding`` does and when it is refused: Gardener's rules on a Shoot that is a CRD.

Source: gardener plugin/pkg/shoot/validator/admission.go (``Admit``, ``validateScheduling``) and
pkg/apiserver/registry/core/shoot/strategy.go (``shootBindingStrategy``, ``Canonicalize``). Codes are those of the real
API server, which answers 500 where its admission returns a plain error.

One rule is stricter here: another binding while a migration runs is refused; Gardener freezes the rest of the spec
then, but this it lets pass. Not emulated: taints, access restrictions, capacity, cloud profiles, DNS, zones; changes
of metadata that come with a binding (they are not written).
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from backupagent.errors import KubeConflict
from backupagent.kube.client import Kube
from backupagent.kube.resources import SEEDS, SHOOTS, Document

SEED_LABEL = "name.seed.gardener.cloud/"
ATTEMPTS = 5
"""How often the real API server, too, repeats a patch that met a conflict."""


class Refused(Exception):
    """The API server says no.

    Args:
        code: HTTP status.
        reason: ``reason`` of the Status document.
        message: Why.
        name: Name of the Shoot.
    """

    def __init__(self, code: HTTPStatus, reason: str, message: str, *, name: str) -> None:
        super().__init__(message)
        self.code = code
        self._reason = reason
        self._message = message
        self._name = name

    def status(self) -> dict[str, Any]:
        """Return the answer's body."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self._message,
            "reason": self._reason,
            "details": {"name": self._name, "group": SHOOTS.group, "kind": SHOOTS.plural},
            "code": int(self.code),
        }


def bind(kube: Kube, namespace: str, name: str, change: Callable[[Document], Document]) -> Document:
    """Bind a Shoot to a Seed.

    Args:
        kube: The API server, as an administrator: the caller's right was checked before.
        namespace: The Shoot's namespace.
        name: The Shoot's name.
        change: Makes the wanted Shoot from the one that is there. When it carries over the resourceVersion that is
            there, a conflict is tried again.

    Returns:
        The Shoot as it is now.

    Raises:
        Refused: the rules forbid it, or ``change`` does.
        KubeError: the API server refuses for reasons of its own.
    """
    for attempt in range(ATTEMPTS):
        old = kube.get(SHOOTS, name, namespace)
        new = change(old)
        check(old, new, {seed: kube.find(SEEDS, seed) for seed in (seed_name(old), seed_name(new)) if seed})
        metadata = {"resourceVersion": old["metadata"]["resourceVersion"], "labels": seed_labels(old, seed_name(new))}
        changes = {"metadata": metadata, "spec": {"seedName": seed_name(new)}}
        try:
            return kube.patch(SHOOTS, name, namespace, changes)
        except KubeConflict:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def seed_name(shoot: Document) -> str | None:
    """Return ``spec.seedName``."""
    name: str | None = shoot.get("spec", {}).get("seedName")
    return name


def check(old: Document, new: Document, seeds: Mapping[str, Document | None]) -> None:
    """Check a binding.

    Args:
        old: The Shoot as it is.
        new: The Shoot as it is wanted.
        seeds: The Seeds that they name, None for those that do not exist.

    Raises:
        Refused: it is not allowed.
    """
    name = old["metadata"]["name"]
    source, destination = seed_name(old), seed_name(new)
    if source == destination:
        message = "update of binding rejected, shoot is already assigned to the same seed"
        raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "", message, name=name)
    for seed in (destination, source):
        if seed is not None and seeds[seed] is None:
            missing = f'Internal error occurred: could not find referenced seed "{seed}"'
            raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", missing, name=name)
    message = _objection(old, new, seeds)
    if message:
        text = f'{SHOOTS.plural}.{SHOOTS.group} "{name}" is forbidden: {message}'
        raise Refused(HTTPStatus.FORBIDDEN, "Forbidden", text, name=name)


def _objection(old: Document, new: Document, seeds: Mapping[str, Document | None]) -> str:
    """Return why the admission forbids a binding; empty when it does not."""
    source, destination = seed_name(old), seed_name(new)
    if destination is None:
        return "spec.seedName cannot be set to nil"
    if source is not None and old["spec"] | {"seedName": None} != new["spec"] | {"seedName": None}:
        return (
            "only spec.seedName can be changed using the binding subresource when the shoot is being rescheduled to a "
            "new seed"
        )
    if "deletionTimestamp" in (seeds[destination] or {}).get("metadata", {}):
        name = old["metadata"]["name"]
        return f"cannot schedule shoot '{name}' on seed '{destination}' that is already marked for deletion"
    if source is not None and is_migrating(old):
        return "shoot spec cannot be changed because shoot has been rescheduled to a new seed"
    return "" if source is None else _objection_to_backups({"old seed": source, "seed": destination}, seeds)


def _objection_to_backups(named: Mapping[str, str], seeds: Mapping[str, Document | None]) -> str:
    for which, seed in named.items():
        if not (seeds[seed] or {}).get("spec", {}).get("backup"):
            return f'cannot change seed name because backup is not configured for {which} "{seed}"'
    return ""


def is_migrating(shoot: Document) -> bool:
    """Whether a migration was asked for and its restore has not succeeded."""
    status = shoot.get("status", {})
    operation = status.get("lastOperation") or {}
    between = status.get("seedName") is not None and status["seedName"] != seed_name(shoot)
    restored = operation.get("type") == "Restore" and operation.get("state") == "Succeeded"
    return between or (operation.get("type") in {"Migrate", "Restore"} and not restored)


def seed_labels(shoot: Document, bound_to: str | None) -> dict[str, str | None]:
    """Return the changes that make the labels name the Seeds of spec and status, and no other."""
    wanted = {SEED_LABEL + seed for seed in (bound_to, shoot.get("status", {}).get("seedName")) if seed}
    there = {label for label in shoot["metadata"].get("labels", {}) if label.startswith(SEED_LABEL)}
    return dict.fromkeys(wanted, "true") | dict.fromkeys(there - wanted)


def merged(document: Document, changes: Document) -> dict[str, Any]:
    """Apply a JSON merge patch to an object.

    Source:
        RFC 7396.
    """
    result = dict(document)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            there = result.get(name)
            result[name] = merged(there if isinstance(there, Mapping) else {}, value)
        else:
            result[name] = value
    return result
