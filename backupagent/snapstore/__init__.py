"""Snapshots by name on any object store: where they lie, what is known about them, whether they are whole."""

from backupagent.snapstore.layout import Layout
from backupagent.snapstore.proof import SnapshotProof
from backupagent.snapstore.store import Listing, SnapStore

__all__ = ["Layout", "Listing", "SnapStore", "SnapshotProof"]
