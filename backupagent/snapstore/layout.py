"""Keys below a store's prefix.

``<prefix>/v2/`` holds the snapshots and is the peer's; ``<prefix>/manifests/`` is ours and the peer ignores it.
``<prefix>/v1/Backup-<time>/`` held them in the peer's first versions; it is read, never written.
Source: etcd-backup-restore, pkg/types/snapstore.go and pkg/snapstore/snapshot.go at debd95b.
"""

from dataclasses import dataclass

_VERSION = "v2"


@dataclass(frozen=True)
class Layout:
    """Keys of one store.

    Attributes:
        prefix: What the store's URI names behind the bucket, without slashes at its ends; may be empty.
    """

    prefix: str

    def _below(self, *elements: str) -> str:
        return "/".join([*([self.prefix] if self.prefix else []), *elements])

    @property
    def root(self) -> str:
        """Prefix of everything, at a path boundary."""
        return self._below("") if self.prefix else ""

    @property
    def snapshots(self) -> str:
        """Prefix of all snapshots. It ends at a path boundary, so ``a/b`` never matches ``a/bc``."""
        return self._below(_VERSION, "")

    @property
    def legacy(self) -> str:
        """Prefix of the directories of the first layout."""
        return self._below("v1", "")

    def legacy_name(self, key: str) -> str | None:
        """Return the name of a snapshot of the first layout; None for a key that is not one's place."""
        directory, _slash, name = key[len(self.legacy) :].partition("/")
        return name if directory.startswith("Backup-") and name and "/" not in name else None

    @property
    def manifests(self) -> str:
        """Prefix of all manifests."""
        return self._below("manifests", "")

    @property
    def uploads(self) -> str:
        """Prefix of the journal of open uploads."""
        return self._below("manifests", "uploads", "")

    def snapshot(self, name: str) -> str:
        """Key of a new snapshot."""
        return self.snapshots + name

    def manifest(self, name: str) -> str:
        """Key of the manifest of the snapshot with that name."""
        return f"{self.manifests}{name}.json"
