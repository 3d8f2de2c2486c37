"""Where a Shoot is with respect to a Seed, from the Shoot alone. Pure functions."""

from enum import StrEnum

from backupagent.model.gardener import MIGRATE, RESTORE, SUCCEEDED, Shoot


class Standing(StrEnum):
    """Where a Shoot is."""

    THERE = "there"  # bound to the Seed, and Gardener has done everything
    MOVING = "moving"  # bound to the Seed, and on its way
    ELSEWHERE = "elsewhere"  # not bound to the Seed


def is_moving(shoot: Shoot) -> bool:
    """Whether a Shoot is between two Seeds.

    ``status.seedName`` alone does not tell: gardenlet sets it to the destination when the source has let go, before
    anything was restored, so ``lastOperation`` is asked as well.

    Source: gardener, pkg/gardenlet/controller/shoot/shoot/reconciler_migrate.go at b312835.
    """
    operation = shoot.operation
    restoring = operation.type == RESTORE and operation.state != SUCCEEDED
    return shoot.must_migrate or restoring or operation.type == MIGRATE


def standing(shoot: Shoot, seed: str) -> Standing:
    """Say where a Shoot is with respect to a Seed."""
    if shoot.spec_seed != seed:
        return Standing.ELSEWHERE
    return Standing.MOVING if is_moving(shoot) else Standing.THERE
