"""Snapshots by name: listing them, and reading and writing what is known about them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backupagent.errors import BackupAgentError, EmptySource, MalformedContent, NameMismatch
from backupagent.model.manifest import (
    MAX_METADATA_SIZE,
    METADATA_KEY,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from backupagent.model.snapshot import Snapshot, StoredSnapshot
from backupagent.snapstore.layout import Layout
from backupagent.stores.base import NO_METADATA, ObjectInfo, ObjectStore
from backupagent.transfer.journal import UploadJournal

MAX_MANIFEST_SIZE = 16 * 1024 * 1024
"""Bytes; a manifest with 100,000 leases has about 3 MB. Bounds what a hostile bucket can make us read."""


@dataclass(frozen=True)
class Listing:
    """What lies among the snapshots.

    Attributes:
        snapshots: Everything whose name follows the grammar, in key order; those of the first layout last.
        unreadable: Keys of everything else.
        manifests: Names of the snapshots that have a manifest object.
        uploads: Names of the entries in the journal.
    """

    snapshots: tuple[StoredSnapshot, ...]
    unreadable: tuple[str, ...]
    manifests: frozenset[str]
    uploads: frozenset[str] = frozenset()


class SnapStore:
    """Snapshots in one store. Thread-safe as far as its store is.

    Args:
        store: The bucket.
        prefix: What the URI names behind the bucket.
    """

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self.store = store
        self.layout = Layout(prefix.strip("/"))

    @property
    def display(self) -> str:
        """The store as shown to users."""
        return self.store.display

    @property
    def journal(self) -> UploadJournal:
        """Where open uploads to this store are remembered."""
        return UploadJournal(self.store, self.layout.uploads)

    def list(self) -> Listing:
        """List snapshots and the names of manifests.

        Keys deeper than a snapshot's are parts that some of the peer's providers leave; they are passed over. A
        snapshot of the first layout counts as long as none of its name lies in the second.
        """
        snapshots: dict[str, StoredSnapshot] = {}
        unreadable: list[str] = []
        for name, info in self._places():
            try:
                found = StoredSnapshot(Snapshot.parse(name), info.key, info.size, info.etag)
            except ValueError:
                unreadable.append(info.key)
            else:
                snapshots.setdefault(name, found)
        manifests, uploads = self._json_names()
        return Listing(tuple(snapshots.values()), tuple(unreadable), manifests, uploads)

    def _places(self) -> Iterator[tuple[str, ObjectInfo]]:
        """List what may be snapshots, with their names, those of the second layout first."""
        for info in self.store.list_objects(self.layout.snapshots):
            name = info.key[len(self.layout.snapshots) :]
            if "/" not in name:
                yield name, info
        for info in self.store.list_objects(self.layout.legacy):
            legacy_name = self.layout.legacy_name(info.key)
            if legacy_name is not None:
                yield legacy_name, info

    def _json_names(self) -> tuple[frozenset[str], frozenset[str]]:
        """List the names of manifests and of the journal's entries, which lie below them."""
        keys = [info.key for info in self.store.list_objects(self.layout.manifests)]
        return _names(keys, self.layout.manifests), _names(keys, self.layout.uploads)

    def remove_leftovers(self) -> None:
        """Remove what killed writers left and nobody will take up, where the store tells it.

        That is an object on its way in one piece, and an upload that was not yet remembered.
        """
        if not self.store.features.leftovers:
            return
        uploads = self.store.list_uploads(self.layout.root)
        remembered = self.journal.uploads()  # afterwards: somebody else may just have begun one
        for upload in uploads:
            if not upload.part_size or (upload.key, upload.id) not in remembered:
                self.store.abort_upload(upload)

    def empty(self, listing: Listing) -> EmptySource:
        """Make the error for a store without a usable full, with what may have been meant instead."""
        deltas = len(listing.snapshots)
        reason = f"there are {deltas} delta snapshots but no full one" if deltas else "there is no snapshot"
        return EmptySource(reason, key=f"{self.display} ({self.layout.snapshots})", hint=self._similar())

    def _similar(self) -> str | None:
        """Name a prefix that has snapshots and begins like ours: a typing error, or a sibling."""
        try:
            for info in self.store.list_objects(self.layout.prefix):
                before, found, _name = info.key.rpartition("/v2/")
                if found and before != self.layout.prefix:
                    return f"there are snapshots under the prefix {before!r}; check the prefix in the URI"
        except BackupAgentError:
            return None
        return None

    def manifest(self, stored: StoredSnapshot, listing: Listing) -> Manifest | None:
        """Read what is known about a snapshot.

        Args:
            stored: The snapshot.
            listing: Of this store: tells which manifests there are, so that none is asked for in vain.

        Returns:
            Its manifest, or None for a snapshot of the peer.

        Raises:
            MalformedContent: there is one and it cannot be read.
            NameMismatch: it is that of another snapshot.
        """
        return _of_this_name(self._stored_manifest(stored, listing), stored)

    def manifest_of(self, stored: StoredSnapshot, metadata: Mapping[str, str]) -> Manifest | None:
        """Read what a snapshot's own metadata says about it; see ``manifest``."""
        return _of_this_name(manifest_in(metadata, stored.key), stored)

    def _stored_manifest(self, stored: StoredSnapshot, listing: Listing) -> Manifest | None:
        if stored.name in listing.manifests:
            key = self.layout.manifest(stored.name)
            size = self.store.stat(key).size
            if size > MAX_MANIFEST_SIZE:
                message = f"a manifest of {size} bytes"
                raise MalformedContent(message, key=key)
            buffer = bytearray(size)
            self.store.read_into(key, memoryview(buffer))
            return decode_manifest(bytes(buffer), key)
        if stored.snapshot.is_full or not self.store.features.metadata:
            return None
        return manifest_in(self.store.stat(stored.key).metadata, stored.key)

    def metadata_for(self, manifest: Manifest) -> Mapping[str, str]:
        """Return a manifest as metadata of its own object; empty when it must be an object of its own."""
        if not self.store.features.metadata:
            return NO_METADATA
        text = encode_manifest(manifest)
        return {METADATA_KEY: text.decode("ascii")} if len(text) <= MAX_METADATA_SIZE else NO_METADATA

    def save_manifest(self, manifest: Manifest) -> None:
        """Write a manifest as an object."""
        self.store.put(self.layout.manifest(manifest.name), encode_manifest(manifest))


def _names(keys: Sequence[str], folder: str) -> frozenset[str]:
    """Return the names of the JSON objects that lie in a folder itself, without their suffix."""
    names = (key[len(folder) :] for key in keys if key.startswith(folder))
    return frozenset(name.removesuffix(".json") for name in names if "/" not in name and name.endswith(".json"))


def _of_this_name(manifest: Manifest | None, stored: StoredSnapshot) -> Manifest | None:
    if manifest is not None and manifest.name != stored.name:
        raise NameMismatch(f"its manifest is that of {manifest.name}", key=stored.key)
    return manifest


def manifest_in(metadata: Mapping[str, str], key: str) -> Manifest | None:
    """Read a manifest out of an object's metadata; None when it has none.

    Raises:
        MalformedContent: there is one and it cannot be read.
    """
    text = metadata.get(METADATA_KEY)
    return None if text is None else decode_manifest(text.encode(), key)
