"""What is left of uploads that did not come to their end, removed when it is old."""

from backupagent.errors import ObjectLocked, ObjectNotFound, StoreError
from backupagent.operations.report_care import CollectReport, Remains
from backupagent.settings import GcSettings
from backupagent.snapstore import SnapStore
from backupagent.snapstore.unfinished import Unfinished, UnfinishedKind, find_unfinished
from backupagent.stores.base import facts_of
from backupagent.transfer.context import Transfer
from backupagent.units import format_duration

IN_USE_AT_MOST_S = 7 * 24 * 3600.0
"""So long an upload is spared because a process of its number runs here: that may be another one by then."""

LASTING = "the store removes its parts by itself within a week: they cannot be thrown away one by one"


class Collector:
    """Removes stale uploads, their parts and their entries in the journal; never a snapshot.

    Args:
        snapstore: The store.
        settings: How old is stale.
        transfer: Whom to tell and when to stop.
    """

    def __init__(self, snapstore: SnapStore, settings: GcSettings, transfer: Transfer) -> None:
        self._snapstore = snapstore
        self._settings = settings
        self._transfer = transfer

    def run(self) -> CollectReport:
        """Remove what is older than asked and in nobody's use.

        Age is the time since the last sign of life by the store's clock, where the store tells it.

        Raises:
            StoreError: the store cannot be asked, or refuses to remove something.
            Cancelled: the transfer's token was set.
        """
        progress = self._transfer.progress
        removed: list[Remains] = []
        kept: list[Remains] = []
        with progress.phase("discover"):
            now_s = self._now_s()
            found = find_unfinished(self._snapstore)
        with progress.phase("remove"):
            for each in found:
                self._transfer.cancel.raise_if_set()
                age_s = None if each.alive_s is None else max(0.0, now_s - each.alive_s)
                why = self._why_kept(each, age_s)
                if why:
                    kept.append(_remains(each, age_s, why))
                    continue
                progress.note(each.key)
                if self._settings.dry_run:
                    removed.append(_remains(each, age_s, self._note(each)))
                elif self._has_been_taken_up(each):
                    kept.append(_remains(each, age_s, "a copy has just taken it up"))
                else:
                    removed.append(_remains(each, age_s, self._remove(each) or self._note(each)))
        return CollectReport(
            store=self._snapstore.display,
            dry_run=self._settings.dry_run,
            removed=tuple(removed),
            kept=tuple(kept),
            bytes=sum(each.bytes or 0 for each in removed),
            seconds=progress.elapsed_s,
            phases=tuple(progress.phases),
        )

    def _now_s(self) -> float:
        """Return the time by the store's clock if it tells it, else by ours."""
        try:
            time_s = facts_of(self._snapstore.store).time_s
        except StoreError as error:
            if error.retryable:
                raise
            time_s = None
        return self._transfer.clock.now().timestamp() if time_s is None else time_s

    def _why_kept(self, each: Unfinished, age_s: float | None) -> str:
        """Say why it stays; empty when it is stale."""
        if age_s is None:
            return "the store does not tell how old it is"
        if age_s < self._settings.older_than:
            return f"younger than {format_duration(self._settings.older_than)}"
        if each.in_use and age_s < IN_USE_AT_MOST_S:
            return "its process runs on this machine"
        return ""

    def _note(self, each: Unfinished) -> str:
        lasting = each.kind is UnfinishedKind.UPLOAD and self._snapstore.store.features.lasting_parts
        return LASTING if lasting else ""

    def _has_been_taken_up(self, each: Unfinished) -> bool:
        """Whether somebody has written its entry anew since it was listed."""
        if not each.entry_key or each.alive_s is None:
            return False
        try:
            return self._snapstore.store.stat(each.entry_key).modified_s > each.alive_s
        except ObjectNotFound:  # completed, or removed by another
            return False

    def _remove(self, each: Unfinished) -> str:
        """Remove it; return what stays, empty when nothing does."""
        try:
            if each.upload is not None:
                self._snapstore.store.abort_upload(each.upload)
            if each.entry_key:
                self._snapstore.store.delete(each.entry_key)
        except ObjectLocked as error:
            return f"some of it stays until its retention ends: {error.cause}"
        return ""


def _remains(each: Unfinished, age_s: float | None, note: str) -> Remains:
    return Remains(each.kind.value, each.key, age_s, each.held, note)
