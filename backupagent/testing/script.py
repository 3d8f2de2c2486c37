"""How the scripted gardenlets behave."""

from dataclasses import dataclass

from backupagent.errors import BackupAgentError


class FlowFailed(BackupAgentError):
    """A step of the flow failed, as gardenlet would tell in ``lastErrors``."""

    default_hint = "the objects of the Shoot's control plane tell more"


@dataclass(frozen=True, kw_only=True)
class Script:
    """How the gardenlets behave; the defaults are good behaviour.

    Attributes:
        null_status_seed: ``status.seedName`` becomes null when the source lets go, as the documents say; the real
            one's code makes it the destination.
        skip_final_snapshot: Nobody asks for the final snapshot.
        empty_source: The source's objects vanish before the copy.
        keep_source: The source's objects are not deleted at the end.
        gate_s: Pause between the binding and the first step. The real one waits for the Shoot's constraint
            ``ReadyForMigration``, which the controller-manager looks after every 5 s.
        pause_s: Pause after every step.
        poll_s: Pause between two looks at what is waited for; the real one's is 5 s.
        timeout_s: How long anything is waited for; the real one's is 5 min to 15 min.
    """

    null_status_seed: bool = False
    skip_final_snapshot: bool = False
    empty_source: bool = False
    keep_source: bool = False
    gate_s: float = 1.0
    pause_s: float = 0.0
    poll_s: float = 0.1
    timeout_s: float = 300.0
