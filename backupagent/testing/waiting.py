"""Waiting for what others bring about."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import BackupAgentError, KubeUnavailable

T = TypeVar("T")


class NotInTime(BackupAgentError):
    """Something that was waited for did not come about."""

    default_hint = "the logs of whoever should have done it tell more"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How something is waited for.

    Attributes:
        cancel: Ends the wait.
        timeout_s: How long it may take.
        poll_s: Pause between two looks.
        clock: Source of time.
    """

    cancel: Cancel
    timeout_s: float
    poll_s: float = 0.1
    clock: Clock = SYSTEM_CLOCK

    def until(self, look: Callable[[], T], what: str) -> T:
        """Look until there is an answer that is true; an API server that restarts is waited out.

        Args:
            look: Looks.
            what: What is waited for, for the message.

        Returns:
            The answer.

        Raises:
            NotInTime: there was none in time.
            Cancelled: the token was set.
        """
        deadline = self.clock.monotonic_s() + self.timeout_s
        trouble = ""
        while True:
            try:
                found = look()
                if found:
                    return found
            except KubeUnavailable as error:
                trouble = f" ({error})"
            if self.clock.monotonic_s() > deadline:
                raise NotInTime(f"not within {self.timeout_s:g} s: {what}{trouble}")
            self.cancel.wait(self.poll_s)
            self.cancel.raise_if_set()
