"""Whether a Shoot may begin to move to another Seed: facts from the API, and a pure verdict.

Source of the rules: gardener, plugin/pkg/shoot/validator and pkg/controllermanager/controller/shoot/migration at
b312835 (what Gardener itself asks for), and what a restore cannot do without.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from backupagent.errors import KubeForbidden, PreflightFailed
from backupagent.kube.client import Kube
from backupagent.kube.resources import BACKUP_BUCKETS, SEEDS, SHOOT_STATES, Document, Resource
from backupagent.model.gardener import MIGRATE, RESTORE, SUCCEEDED, BackupBucket, Seed, Shoot, holds_encryption_key

T = TypeVar("T")

READY_CONDITIONS = ("GardenletReady", "SeedSystemComponentsHealthy")
"""Conditions of the destination that Gardener asks for before it lets a Shoot be migrated."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One reason why a migration must not begin.

    Attributes:
        reason: CamelCase, stable.
        message: What is missing or unhealthy, one line.
        hint: What the operator can do.
    """

    reason: str
    message: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was found under one name.

    Attributes:
        what: The object, for messages, e.g. ``Seed seed-b``.
        document: The object; None when there is none, or when it could not be looked at.
        unchecked: Why it could not be looked at; else empty.
    """

    what: str
    document: Document | None = None
    unchecked: str = ""

    def read(self, view: Callable[[Document], T]) -> T | None:
        """Return what a view makes of the object; None when there is none."""
        return view(self.document) if self.document is not None else None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a preflight judges.

    Attributes:
        shoot: The Shoot.
        destination: Name of the Seed that it shall move to.
        source_seed: The Seed that it is on.
        destination_seed: The Seed that it shall move to.
        source_bucket: Where its backups are.
        destination_bucket: Where they shall go.
        shoot_state: Its ShootState.
    """

    shoot: Shoot
    destination: str
    source_seed: Look
    destination_seed: Look
    source_bucket: Look
    destination_bucket: Look
    shoot_state: Look

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What could not be checked, and why; one line each."""
        looks = (
            self.source_seed,
            self.destination_seed,
            self.source_bucket,
            self.destination_bucket,
            self.shoot_state,
        )
        return tuple(
            dict.fromkeys(f"{look.what} could not be checked: {look.unchecked}" for look in looks if look.unchecked)
        )


def gather(kube: Kube, shoot: Shoot, destination: str) -> Facts:
    """Read everything that a preflight needs; what RBAC does not let us read is told as unchecked.

    Args:
        kube: The garden cluster.
        shoot: The Shoot, as it is now.
        destination: Name of the Seed that it shall move to.

    Raises:
        KubeUnavailable: the API server cannot be reached.
    """
    source = shoot.status_seed or shoot.spec_seed
    source_seed = _look(kube, SEEDS, source)
    destination_seed = _look(kube, SEEDS, destination)
    return Facts(
        shoot=shoot,
        destination=destination,
        source_seed=source_seed,
        destination_seed=destination_seed,
        source_bucket=_bucket(kube, source_seed),
        destination_bucket=_bucket(kube, destination_seed),
        shoot_state=_look(kube, SHOOT_STATES, shoot.name, shoot.namespace),
    )


def _look(kube: Kube, resource: Resource, name: str, namespace: str = "") -> Look:
    what = f"{resource.kind} {namespace}/{name}" if namespace else f"{resource.kind} {name}"
    if not name:
        return Look(what=what)
    try:
        return Look(what=what, document=kube.find(resource, name, namespace))
    except KubeForbidden as error:
        return Look(what=what, unchecked=error.cause)


def _bucket(kube: Kube, look: Look) -> Look:
    """Look at the BackupBucket of a Seed: it is named by the Seed's uid."""
    seed = look.read(Seed.read)
    if seed is None:
        return Look(what=f"BackupBucket of {look.what}", unchecked=look.unchecked)
    found = _look(kube, BACKUP_BUCKETS, seed.uid)
    return Look(what=f"{found.what} of {look.what}", document=found.document, unchecked=found.unchecked)


def refusals(facts: Facts) -> tuple[Refusal, ...]:
    """Return every reason why the migration must not begin; none when it may. What was not checked is no reason."""
    return (
        *_of_shoot(facts),
        *_of_backups("Source", facts.source_seed, facts.source_bucket),
        *_of_backups("Destination", facts.destination_seed, facts.destination_bucket),
        *_of_destination(facts),
        *_of_shoot_state(facts.shoot_state),
    )


def require(facts: Facts) -> None:
    """Refuse a migration that must not begin.

    Raises:
        PreflightFailed: names every reason; its hint is that of the first.
    """
    found = refusals(facts)
    if found:
        raise PreflightFailed(
            f"{facts.shoot.key} must not move to {facts.destination}: {summary(found)}", hint=found[0].hint
        )


def summary(found: tuple[Refusal, ...]) -> str:
    """Return all reasons in one line."""
    return "; ".join(f"{refusal.reason}: {refusal.message}" for refusal in found)


def _of_shoot(facts: Facts) -> list[Refusal]:
    shoot, found = facts.shoot, []
    if shoot.deleting:
        found.append(_refusal("ShootInDeletion", f"Shoot {shoot.key} is being deleted", "there is nothing to move"))
    if not shoot.backup_entry_name:
        found.append(
            _refusal(
                "ShootWithoutControlPlane",
                f"Shoot {shoot.key} has no technical id yet",
                "wait until it has been created",
            )
        )
    if shoot.hibernated != shoot.hibernation_wanted:
        change = "being hibernated" if shoot.hibernation_wanted else "waking up"
        found.append(
            _refusal(
                "HibernationUnderWay", f"Shoot {shoot.key} is {change}", "wait until that has ended, then try again"
            )
        )
    if _moves_elsewhere(shoot, facts.destination):
        found.append(
            _refusal(
                "AlreadyMigrating",
                f"Shoot {shoot.key} is moving to {shoot.spec_seed} ({shoot.operation})",
                "follow that migration with `backupagent migrations`, then try again",
            )
        )
    elif facts.destination == (shoot.status_seed or shoot.spec_seed):
        found.append(
            _refusal("SameSeed", f"Shoot {shoot.key} is on {facts.destination}", "name another destination Seed")
        )
    return found


def _moves_elsewhere(shoot: Shoot, destination: str) -> bool:
    operation = shoot.operation
    running = operation.type == MIGRATE or (operation.type == RESTORE and operation.state != SUCCEEDED)
    return shoot.spec_seed != destination and (shoot.must_migrate or running)


def _of_backups(side: str, seed_look: Look, bucket_look: Look) -> list[Refusal]:
    """Judge whether a Seed can give or take backups."""
    seed, bucket = seed_look.read(Seed.read), bucket_look.read(BackupBucket.read)
    if seed is None:
        hint = "check the Seed's name"
        return [] if seed_look.unchecked else [_refusal(f"{side}SeedMissing", f"{seed_look.what} does not exist", hint)]
    if not seed.backup_provider:
        hint = "only Shoots on Seeds with spec.backup can be moved, and only to such Seeds"
        return [_refusal(f"{side}SeedWithoutBackup", f"{seed_look.what} has no spec.backup", hint)]
    if bucket is None:
        hint = "gardenlet makes it; look at the Seed's condition BackupBucketsReady"
        missing = _refusal(f"{side}BackupBucketMissing", f"{bucket_look.what} does not exist", hint)
        return [] if bucket_look.unchecked else [missing]
    if bucket.trouble:
        hint = "mend what its status names: a copy needs both buckets"
        return [_refusal(f"{side}BackupBucketUnhealthy", f"{bucket_look.what}: {bucket.trouble}", hint)]
    return []


def _of_destination(facts: Facts) -> list[Refusal]:
    """Judge the destination by Gardener's own rules for a migration."""
    seed = facts.destination_seed.read(Seed.read)
    if seed is None:
        return []
    what = facts.destination_seed.what
    if seed.deleting:
        return [_refusal("DestinationSeedInDeletion", f"{what} is being deleted", "name another destination Seed")]
    wrong = [
        f"{name} is {seed.conditions.get(name, 'missing')}" for name in READY_CONDITIONS if not _is_true(seed, name)
    ]
    if seed.observed_generation < seed.generation:
        wrong.append(f"gardenlet has seen generation {seed.observed_generation} of {seed.generation}")
    source = facts.source_seed.read(Seed.read)
    if source is not None and source.gardener_version != seed.gardener_version:
        mine, other = source.gardener_version or "unknown", seed.gardener_version or "unknown"
        wrong.append(f"its gardenlet has version {other}, the source's {mine}")
    hint = "wait until the Seed is ready, or name another one"
    return [_refusal("DestinationSeedUnready", f"{what}: {', '.join(wrong)}", hint)] if wrong else []


def _is_true(seed: Seed, condition: str) -> bool:
    return seed.conditions.get(condition) == "True"


def _of_shoot_state(look: Look) -> list[Refusal]:
    if look.unchecked:
        return []
    if look.document is None:
        hint = "the new control plane takes its secrets from it; turn on gardenlet's ShootState controller"
        return [_refusal("ShootStateMissing", f"{look.what} does not exist", hint)]
    if not holds_encryption_key(look.document):
        hint = "without the key nobody can read the restored etcd; find out why gardenlet does not persist it"
        return [_refusal("EncryptionKeyMissing", f"{look.what} does not hold the etcd encryption key", hint)]
    return []


def _refusal(reason: str, message: str, hint: str) -> Refusal:
    return Refusal(reason=reason, message=message, hint=hint)
