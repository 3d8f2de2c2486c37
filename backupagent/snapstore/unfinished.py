"""What copies and snapshots that did not come to their end have left in a store."""

from dataclasses import dataclass
from enum import StrEnum

from backupagent.errors import ObjectNotFound
from backupagent.snapstore.store import SnapStore
from backupagent.stores.base import Upload
from backupagent.transfer.journal import JournalFile


class UnfinishedKind(StrEnum):
    """What is left: an upload with its parts; a piece of a write in one request; an entry of the journal alone."""

    UPLOAD = "upload"
    LEFTOVER = "leftover"
    ENTRY = "journal entry"


@dataclass(frozen=True)
class Unfinished:
    """Something that is not whole.

    Attributes:
        kind: What it is.
        key: The object that it would have become; of a journal's entry its own key.
        upload: How the store calls it; None for an entry alone.
        entry_key: Key of its entry in the journal; empty when there is none.
        alive_s: Its last sign of life that is known, seconds since 1970; None when nobody knows.
        held: Bytes that the store holds of it; None when nobody knows.
        in_use: Whether its process runs on this very machine.
    """

    kind: UnfinishedKind
    key: str
    upload: Upload | None
    entry_key: str
    alive_s: float | None
    held: int | None
    in_use: bool


def find_unfinished(snapstore: SnapStore) -> list[Unfinished]:
    """List what is not whole below the snapshots and manifests of a store, by key.

    Copies that run are in it too: their age and ``in_use`` tell.

    Raises:
        StoreError: the store cannot be asked.
    """
    # The journal first: what is begun while this runs has an upload and no entry here, and is young.
    files = snapstore.journal.files()
    by_upload = {(file.entry.key, file.entry.upload): file for file in files if file.entry is not None}
    found: list[Unfinished] = []
    seen: set[str] = set()
    for prefix in (snapstore.layout.snapshots, snapstore.layout.manifests):
        for upload in snapstore.store.list_uploads(prefix):
            file = by_upload.get((upload.key, upload.id))
            seen.update([] if file is None else [file.key])
            found.append(_described(snapstore, upload, file))
    found += [_entry(snapstore, file) for file in files if file.key not in seen]
    return sorted(found, key=lambda one: (one.key, one.upload.id if one.upload else ""))


def _described(snapstore: SnapStore, upload: Upload, file: JournalFile | None) -> Unfinished:
    signs = [sign for sign in (upload.alive_s, None if file is None else file.modified_s) if sign is not None]
    named = file.upload if file is not None and file.upload is not None else upload
    leftover = not upload.part_size and file is None and snapstore.store.features.leftovers
    return Unfinished(
        UnfinishedKind.LEFTOVER if leftover else UnfinishedKind.UPLOAD,
        upload.key,
        named,
        "" if file is None else file.key,
        max(signs, default=None),
        _held(snapstore, named) if upload.held is None else upload.held,
        file is not None and file.is_alive,
    )


def _held(snapstore: SnapStore, upload: Upload) -> int | None:
    """Add up the parts of an upload; None when it has ended meanwhile, or its record is damaged."""
    try:
        return sum(part.size for part in snapstore.store.list_parts(upload))
    except ObjectNotFound:
        return None


def _entry(snapstore: SnapStore, file: JournalFile) -> Unfinished:
    """Describe an entry whose upload the store does not list: it is gone, or the store lists too little."""
    held = None if file.upload is None else _held(snapstore, file.upload)
    kind = UnfinishedKind.ENTRY if held is None else UnfinishedKind.UPLOAD
    upload = None if held is None else file.upload
    key = file.key if upload is None else upload.key
    return Unfinished(kind, key, upload, file.key, file.modified_s, held, file.is_alive)
