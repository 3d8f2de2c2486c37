"""What every transfer needs from its caller."""

from collections.abc import Callable
from dataclasses import dataclass, field

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.progress import Progress
from backupagent.settings import TransferSettings

LOOK_S = 0.25
"""How often somebody who waits for bytes looks whether the work was cancelled, seconds."""


@dataclass(frozen=True)
class Transfer:
    """How to transfer, whom to tell, and when to stop.

    Attributes:
        settings: Workers, memory and part size.
        cancel: Looked at before every part.
        progress: Counts bytes.
        clock: Source of time.
        trouble: Counts the requests that had to be made again, in all.
        round_trip_s: Tells how long the shortest answers of source and target take together; None: nobody knows.
    """

    settings: TransferSettings = field(default_factory=TransferSettings)
    cancel: Cancel = field(default_factory=Cancel)
    progress: Progress = field(default_factory=Progress)
    clock: Clock = SYSTEM_CLOCK
    trouble: Callable[[], int] = lambda: 0
    round_trip_s: Callable[[], float | None] = lambda: None
