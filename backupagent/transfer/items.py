"""What the engine is asked to copy, and what became of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from backupagent.errors import BackupAgentError
from backupagent.stores.base import CopySource, ObjectInfo


class Inspector(Protocol):
    """Looks at every byte of an object, in order, before the object becomes visible."""

    def pass_unseen(self) -> None:
        """Say that the store copies the object by itself: not a byte of it will be seen.

        Raises:
            IntegrityError: the object must not be published, by what is known without seeing it.
        """
        ...

    def update(self, data: memoryview) -> None:
        """Look at the next bytes; they are not kept.

        Raises:
            IntegrityError: the object must not be published.
        """
        ...

    def finish(self) -> None:
        """Say that the object has ended.

        Raises:
            IntegrityError: the object must not be published.
        """
        ...


@dataclass(frozen=True)
class ByStore:
    """An object that the target is to copy by itself.

    Attributes:
        source: The object as the target is told of it.
        part_size: Bytes of every part but the last; 0 to copy it whole, in one request.
    """

    source: CopySource
    part_size: int


@dataclass(frozen=True)
class CopyItem:
    """An object to copy.

    Attributes:
        source_key: Its key in the source.
        size: Its size as listed, bytes.
        etag: The source's mark of the content; only this very content is copied.
        target_key: Its key in the target.
        inspector: Looks at the bytes on their way.
        metadata: Gives the metadata of the object in the target. Asked after the inspection of an object that fits
            into one part; an object in parts gets none, since it must be begun before its content is known.
        journal_name: Under which an upload in parts is remembered.
        arrived: Told the source's metadata of an object that fits into one part, before it is inspected.
        ready: Called when an object in parts was inspected and is about to become visible: what proves that it was
            copied is written now too, so that a run that is killed right behind does not move it again.
        by_store: How the target copies it by itself; None when its bytes go through here.
    """

    source_key: str
    size: int
    etag: str
    target_key: str
    inspector: Inspector
    metadata: Callable[[], Mapping[str, str]]
    journal_name: str
    arrived: Callable[[Mapping[str, str]], None] = lambda _metadata: None
    ready: Callable[[], None] = lambda: None
    by_store: ByStore | None = None


@dataclass(frozen=True)
class StoreCopy:
    """What the target did by itself.

    Attributes:
        size: Bytes that it copied in this run.
        agreed: Whether its digest of the copy is that of the source; False when there was none to compare.
    """

    size: int
    agreed: bool


@dataclass(frozen=True)
class Copied:
    """An object that was copied.

    Attributes:
        item: As it was asked for.
        info: The object in the target.
        metadata: What it carries.
        reread: Bytes that were read although the target held their part from an earlier run.
        by_store: What the target did by itself; None when the bytes went through here.
    """

    item: CopyItem
    info: ObjectInfo
    metadata: Mapping[str, str]
    reread: int
    by_store: StoreCopy | None = None


@dataclass(frozen=True)
class CopyOutcome:
    """What became of all items.

    Attributes:
        copied: In the order of the items.
        failed: Items whose content is not what it must be, with the reason; the others were copied.
        refusal: Why the target did not copy by itself, or not to the end; None when nothing was refused.
    """

    copied: tuple[Copied, ...]
    failed: tuple[tuple[CopyItem, BackupAgentError], ...]
    refusal: BackupAgentError | None = None
