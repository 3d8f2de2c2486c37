"""One object while it is copied."""

import threading
from dataclasses import dataclass

from backupagent.errors import BackupAgentError
from backupagent.transfer.items import Copied, CopyItem
from backupagent.transfer.plan import Part
from backupagent.transfer.target import PartTarget


@dataclass
class Slot:
    """A part's buffer on its way; free when nobody holds it any more."""

    buffer: bytearray
    view: memoryview
    holders: int = 1


class ObjectState:
    """One object while it is copied; ``lock`` guards every field that changes.

    Args:
        item: As it was asked for.
        parts: All of it.
        upload: Writes its parts; None where it goes in one request.

    Attributes:
        inspected: How many parts were inspected, in order.
        inspecting: Whether somebody inspects now.
        waiting: Parts that came and are not inspected yet.
        open_parts: Parts that have not ended.
        begun: Whether a worker has taken a part of it.
        left: Whether it is left to the next round, in which no store copies by itself.
        moved: Bytes that the store has copied.
        counted: Bytes that the progress counts, where they have to be taken back when it is left.
        error: Why it fails alone.
        copied: What became of it.
    """

    def __init__(self, item: CopyItem, parts: tuple[Part, ...], upload: PartTarget | None) -> None:
        self.item = item
        self.parts = parts
        self.upload = upload
        self.lock = threading.Lock()
        self.inspected = 0
        self.inspecting = False
        self.waiting: dict[int, Slot] = {}
        self.open_parts = len(parts)
        self.begun = False
        self.left = False
        self.moved = self.counted = 0
        self.error: BackupAgentError | None = None
        self.copied: Copied | None = None
