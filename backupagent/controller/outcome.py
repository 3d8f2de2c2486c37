"""What `backupagent migrate` came to."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from backupagent.errors import MigrationFailed
from backupagent.model.migration import MigrationReport, Phase


class End(StrEnum):
    """Why the command ended."""

    BOUND = "bound"  # the Shoot is bound to the destination; nobody was asked to follow
    ALREADY_THERE = "already-there"  # there was nothing to do
    ENDED = "ended"  # the controller's report has ended
    UNPROVEN = "unproven"  # Gardener says that it is done, and no controller has looked
    TIMEOUT = "timeout"  # it goes on, but was not followed longer


@dataclass(frozen=True, kw_only=True)
class MigrationOutcome:
    """The end of `backupagent migrate`.

    Attributes:
        namespace: Of the Shoot.
        shoot: Name of the Shoot.
        source: Name of the source Seed; empty when it can no longer be told.
        destination: Name of the destination Seed.
        end: Why the command ended.
        bound: Whether this command bound the Shoot to its destination; else it was bound before.
        operation: The Shoot's ``lastOperation`` as ``Restore Succeeded 100%``.
        report: The controller's report; None when there is none.
        seconds: How long the command ran.
        notes: What could not be checked or seen.
    """

    namespace: str
    shoot: str
    source: str
    destination: str
    end: End
    bound: bool
    operation: str
    report: MigrationReport | None
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Name of the class of ``errors`` by which the migration failed, as far as this command saw; else empty."""
        if self.report is not None and self.report.phase is Phase.FAILED:
            return self.report.reason or MigrationFailed.__name__
        return MigrationFailed.__name__ if self.end in {End.UNPROVEN, End.TIMEOUT} else ""

    @property
    def message(self) -> str:
        """One line for a person."""
        where = f"{self.namespace}/{self.shoot}"
        if self.report is not None and self.report.ended:
            return self.report.message
        sentences = {
            End.BOUND: f"{where} is bound to {self.destination} and begins to move",
            End.ALREADY_THERE: f"{where} is on {self.destination} already",
            End.UNPROVEN: "Gardener says that the move is done, but no controller reported: nothing is proven",
            End.TIMEOUT: "the move has not ended in the time it was followed; it goes on",
        }
        return sentences.get(self.end, "")

    @property
    def hint(self) -> str:
        """What the operator can do when there is a ``reason``; else empty."""
        if self.report is not None and self.report.phase is Phase.FAILED:
            return self.report.hint
        hints = {
            End.UNPROVEN: "start `backupagent controller`; it looks at the destination bucket now, and "
            "`backupagent verify` on that bucket says what can be restored",
            End.TIMEOUT: f"`backupagent migrations {self.namespace}/{self.shoot}` shows how it goes on",
        }
        return hints.get(self.end, "")

    def to_json(self) -> dict[str, Any]:
        """Return the content of the JSON document."""
        return {
            "namespace": self.namespace,
            "shoot": self.shoot,
            "source": self.source,
            "destination": self.destination,
            "end": self.end.value,
            "bound": self.bound,
            "reason": self.reason,
            "message": self.message,
            "hint": self.hint,
            "operation": self.operation,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
            "report": msgspec.to_builtins(self.report),
        }
