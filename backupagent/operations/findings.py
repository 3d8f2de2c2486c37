"""What checks of stores find, and the small ones."""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from backupagent.errors import BackupAgentError, ChecksumMismatch, StoreError
from backupagent.model.chain import Chain
from backupagent.operations.report_care import CheckStatus
from backupagent.snapstore import SnapStore
from backupagent.snapstore.unfinished import Unfinished
from backupagent.stores.base import ObjectStore
from backupagent.transfer.by_store import shared_service
from backupagent.units import MiB, format_duration, format_size

LARGEST_PROBE = 64 * MiB
"""Bytes of a snapshot that a server-side copy is tried with, at most."""


@dataclass(frozen=True)
class Finding:
    """What a check came to; see ``Check``."""

    status: CheckStatus
    detail: str
    hint: str = ""
    reason: str = ""


def ok(detail: str) -> Finding:
    """Say that it is as it should be."""
    return Finding(CheckStatus.OK, detail)


def warning(detail: str, hint: str) -> Finding:
    """Say what to look at."""
    return Finding(CheckStatus.WARNING, detail, hint)


def untested(detail: str, hint: str = "") -> Finding:
    """Say why it could not be tested."""
    return Finding(CheckStatus.UNTESTED, detail, hint)


def failed(error: BackupAgentError) -> Finding:
    """Say what is wrong."""
    return Finding(CheckStatus.FAILED, str(error), error.hint, error.reason)


@dataclass(frozen=True)
class Measured:
    """How fast a store was.

    Attributes:
        size: Bytes that were moved.
        seconds: How long that took.
        round_trip_s: How long a small request took.
    """

    size: int
    seconds: float
    round_trip_s: float

    @property
    def rate(self) -> float:
        """Bytes a second; 0 when it was too fast to tell."""
        return self.size / self.seconds if self.seconds > 0 else 0.0

    @property
    def words(self) -> str:
        """``64.0 MiB at 90.1 MiB/s``."""
        return f"{format_size(self.size)} at {format_size(self.rate)}/s" if self.rate else format_size(self.size)


def read_back(store: ObjectStore, key: str, content: bytes) -> Finding:
    """Read the probe, and find it in a listing."""
    buffer = bytearray(len(content))
    store.read_into(key, memoryview(buffer))
    if buffer != content:
        raise ChecksumMismatch("it came back with other bytes", key=key)
    if all(info.key != key for info in store.list_objects(key)):
        raise StoreError("the probe is not listed", op="list", key=key, store=store.display)
    return ok("the probe came back as it was written, and is listed")


def delete(store: ObjectStore, key: str) -> Finding:
    """Remove the probe."""
    store.delete(key)
    return ok("the probe was removed")


def aged(each: Unfinished, now_s: float) -> str:
    """Name something unfinished, with its age."""
    age_s = max(0.0, now_s - (each.alive_s or 0.0))
    return f"{each.key} ({each.kind.value}, {format_duration(age_s)} old)"


def server_side(source: SnapStore, target: SnapStore, chains: Sequence[Chain], *, kept: str) -> Finding:
    """Let the target copy the smallest snapshot of the source by itself, as a probe, and remove it again.

    Args:
        source: Is listed and read by the target's service, with the target's credentials.
        target: Where the probe is for a moment.
        chains: Of the source.
        kept: Why nothing that is written can be removed again; empty when it can.

    Raises:
        ChecksumMismatch: the copy has another size.
    """
    if not chains:
        return untested("nothing is listed that it could be tried with")
    copies = shared_service(source.store, target.store)
    if copies is None:
        return ok("not possible, source and target are not on one service: all bytes go through here")
    found = sorted((stored for chain in chains for stored in chain.snapshots), key=lambda stored: stored.size)
    if found[0].size > min(copies.whole, LARGEST_PROBE):
        return untested("there is no snapshot that is small enough to try it with")
    if kept:
        return untested(f"{kept}, and the probe would stay")
    probe = f"{target.layout.manifests}doctor-probe-copy-{secrets.token_hex(8)}"
    try:
        copied = target.store.copy_object(source.store.copy_source(found[0].key, etag=found[0].etag), probe)
    except StoreError as error:
        hint = "let the credentials of the target read the source too; a copy works without, and takes longer"
        return warning(f"refused, all bytes go through here: {error}", hint)
    finally:
        with suppress(BackupAgentError):
            target.store.delete(probe)
    if copied.size != found[0].size:
        raise ChecksumMismatch(f"{copied.size} of {found[0].size} bytes were copied", key=found[0].key)
    return ok(f"possible, tried with {found[0].name}: the bytes of a copy do not pass through here")
