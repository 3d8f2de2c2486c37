"""A target kept in step with a source that is still being written: one look every few seconds, nothing moved twice.

Nothing is ever deleted at the target. What was copied is remembered as long as the source has it, so that memory
does not grow with time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from backupagent.errors import BackupAgentError, Cancelled, ConfigError, RevisionGap, StoreError
from backupagent.model.chain import Chain, build_chains
from backupagent.model.snapshot import StoredSnapshot, without_final
from backupagent.operations.final import newest_final
from backupagent.operations.landing import Landing, Tally
from backupagent.operations.report import Behind, ChainEnd, FollowEnd, FollowReport, Problem
from backupagent.progress import Milestone
from backupagent.settings import CopySettings
from backupagent.snapstore import Listing
from backupagent.transfer.context import Transfer
from backupagent.units import MiB, format_count, format_duration, format_size

SHARE_SIZE = 64 * MiB
"""Bytes at least that are copied between two looks at the source: small enough that a new full need not wait long
behind old history, large enough that the link stays full."""

SHARE_COUNT = 1000
"""Snapshots at most between two looks."""

TRIES = 2
"""How often the same bad object is read: the second time shows whether a byte was changed on the way."""

LONGEST_WAIT_S = 60.0
"""Between two looks while a store cannot be used."""

MANIFEST_PATIENCE_S = 30.0
"""How long the manifest of a final snapshot is waited for when the source has manifests: it is written after the
snapshot, since HashKV is asked for in between."""


class Copying(Protocol):
    """What a follower needs of a copier; see ``Copier``."""

    tally: Tally

    def list_source(self) -> Listing:
        """List the source once."""
        ...

    def choose(self, listing: Listing) -> tuple[Chain, ...]:
        """Return the chains to copy, newest first."""
        ...

    def order(self, chains: Sequence[Chain]) -> list[StoredSnapshot]:
        """Return what this process copies of some chains, in order."""
        ...

    def copy(
        self, snapshots: Sequence[StoredSnapshot], listing: Listing, arrived: Callable[[StoredSnapshot], None]
    ) -> None:
        """Copy snapshots in this order."""
        ...

    def landing(self, chains: Sequence[Chain], since_s: float = 0.0) -> Landing | None:
        """Return who says when the newest chain is at the target."""
        ...

    def forget_target(self) -> None:
        """List the target anew before the next copy."""
        ...


@dataclass
class _Failure:
    """A snapshot that is bad."""

    error: BackupAgentError
    tries: int
    look: int


class Follower:
    """Keeps a target in step.

    Args:
        copying: Does the work.
        settings: How often to look, and whether a final snapshot is the end.
        transfer: Whom to tell and when to stop.

    Raises:
        ConfigError: the settings contradict each other.
    """

    def __init__(self, copying: Copying, settings: CopySettings, transfer: Transfer) -> None:
        if settings.wait_for_final:
            raise ConfigError("--wait-for-final is for a copy that ends; with --follow write --until-final")
        if settings.follow_interval <= 0:
            raise ConfigError("--follow-interval must be longer than 0s")
        self._copying = copying
        self._settings = settings
        self._transfer = transfer
        self._chains: tuple[Chain, ...] = ()
        self._listing = Listing((), (), frozenset())
        self._wanted: list[StoredSnapshot] = []
        self._done: dict[StoredSnapshot, bool] = {}
        """What is at the target, and whether its manifest was known when it came there."""
        self._failed: dict[StoredSnapshot, _Failure] = {}
        self._newest: tuple[str, float] = ("", 0.0)
        self._landing: Landing | None = None
        self._looks = 0
        self._looked_s = 0.0
        self._rate = 0.0
        self._outage: BackupAgentError | None = None
        self._outage_s = 0.0
        self._outage_tries = 0
        self._final: StoredSnapshot | None = None
        self._final_s: float | None = None
        self._told = (0, 0)
        self._told_gap = ""

    def run(self) -> FollowReport:
        """Follow until a final snapshot has been copied, where that is asked for, or the token is set.

        An error that a repetition may mend is waited out, however long it takes; a bad object does not keep the
        others from being copied. Both are in the report.

        Returns:
            What was done, and how far the target is behind; also when an error ended it that came after something
            had been copied.

        Raises:
            EmptySource: the source has no full snapshot.
            BackupAgentError: an error that no repetition mends, before anything was copied.
        """
        progress = self._transfer.progress
        with progress.phase("follow"):
            ended = self._follow()
        behind = self._behind()
        return FollowReport(
            **self._copying.tally.counts(),
            newest_chain=self._newest_chain(),
            ended=ended,
            final=self._final.name if self._final is not None and ended is FollowEnd.FINAL else None,
            behind=behind,
            unlisted_s=self._now_s() - self._looked_s,
            listings=self._looks,
            problems=tuple(self._problems()),
            seconds=progress.elapsed_s,
            phases=tuple(progress.phases),
        )

    def _follow(self) -> FollowEnd:
        while True:
            wait_s = self._settings.follow_interval
            try:
                self._round()
                ended = self._at_the_end()
                if ended is not None:
                    return ended
            except Cancelled:
                return FollowEnd.STOPPED
            except BackupAgentError as error:
                if not error.retryable:
                    if not self._done:
                        raise
                    self._outage = error
                    return FollowEnd.FAILED
                wait_s = self._wait_out(error)
            if self._transfer.cancel.wait(wait_s):
                return FollowEnd.STOPPED

    # ---- one round

    def _round(self) -> None:
        """Look at the source, and copy until nothing is missing; look again in between when it takes long."""
        self._look()
        while share := self._next_share():
            began_s = self._now_s()
            self._copy(share)
            took_s = self._now_s() - began_s
            self._rate = sum(stored.size for stored in share) / took_s if took_s else 0.0
            if self._now_s() - self._looked_s >= self._settings.follow_interval:
                self._tell()
                self._look()
        self._tell()

    def _look(self) -> None:
        self._transfer.cancel.raise_if_set()
        listing = self._copying.list_source()
        self._chains = self._copying.choose(listing)
        self._listing = listing
        self._looks += 1
        self._looked_s = self._now_s()
        self._wanted = self._copying.order(self._chains)
        there = set(listing.snapshots)
        self._done = {stored: known for stored, known in self._done.items() if stored in there}
        self._failed = {stored: failure for stored, failure in self._failed.items() if stored in there}
        self._watch_newest()

    def _watch_newest(self) -> None:
        """Have it told, once for each full, when a new newest chain can be restored."""
        full = self._chains[0].full.key
        elapsed_s = self._transfer.progress.elapsed_s
        if self._newest[0] != full:
            self._newest = full, elapsed_s if self._newest[0] else 0.0
            self._landing = None
        if self._landing is None or self._landing.restorable_after_s is None:
            self._landing = self._copying.landing(self._chains, self._newest[1])
            for stored in self._chains[0].snapshots if self._landing is not None else ():
                if stored in self._done:
                    self._landed(stored)
        gap = next((gap.before for gap in self._chains[0].gaps), "")
        if gap and gap != self._told_gap:
            self._milestone("gap", str(_gap_of(self._chains[0])), bad=True)
        self._told_gap = gap

    def _next_share(self) -> list[StoredSnapshot]:
        """Return what comes next: manifests that are known by now, then what is missing, the newest chain first."""
        share = [stored for stored, known in self._done.items() if not known and self._has_manifest(stored)]
        size, limit = 0, max(SHARE_SIZE, self._rate * self._settings.follow_interval)
        for stored in self._missing():
            if size >= limit or len(share) >= SHARE_COUNT:
                break
            share.append(stored)
            size += stored.size
        return share

    def _missing(self) -> Iterator[StoredSnapshot]:
        """Return what can be tried now; what failed in this look is tried again after the next one."""
        for stored in self._wanted:
            failure = self._failed.get(stored)
            barred = failure is not None and (failure.tries >= TRIES or failure.look == self._looks)
            if stored not in self._done and not barred:
                yield stored

    def _has_manifest(self, stored: StoredSnapshot) -> bool:
        """Whether a manifest tells more of a snapshot than its own metadata: a delta's comes with the delta."""
        return stored.snapshot.is_full and stored.name in self._listing.manifests

    def _copy(self, share: Sequence[StoredSnapshot]) -> None:
        self._transfer.progress.note(self._state())

        def arrived(stored: StoredSnapshot) -> None:
            self._done[stored] = self._has_manifest(stored)
            self._failed.pop(stored, None)
            self._landed(stored)

        try:
            self._copying.copy(share, self._listing, arrived)
        finally:
            for stored, error in self._copying.tally.take_failed():
                self._fail(stored, error)

    def _landed(self, stored: StoredSnapshot) -> None:
        if self._landing is not None:
            self._landing.arrived(stored)

    def _fail(self, stored: StoredSnapshot, error: BackupAgentError) -> None:
        before = self._failed.get(stored)
        self._failed[stored] = _Failure(error, before.tries + 1 if before else 1, self._looks)
        self._done.pop(stored, None)
        if before is None:
            self._milestone(error.reason, str(error), bad=True)

    # ---- trouble

    def _wait_out(self, error: BackupAgentError) -> float:
        """Take in that a store cannot be used; return how long to wait, seconds."""
        if self._outage is None:
            self._outage_s, self._outage_tries = self._now_s(), 0
            self._milestone("unavailable", str(error), bad=True)
        self._outage = error
        wait_s = min(LONGEST_WAIT_S, self._settings.follow_interval * float(2**self._outage_tries))
        self._outage_tries = min(self._outage_tries + 1, 16)
        asked_s = error.retry_after_s if isinstance(error, StoreError) else None
        self._copying.forget_target()
        lasted = format_duration(self._now_s() - self._outage_s)
        self._transfer.progress.note(f"{error.reason} for {lasted}: {error}", resting=True)
        return max(wait_s, asked_s or 0.0)

    def _recovered(self) -> None:
        if self._outage is not None:
            self._milestone("available", f"again, after {format_duration(self._now_s() - self._outage_s)}")
        self._outage = None

    def _problems(self) -> Iterator[Problem]:
        if self._outage is not None:
            key = getattr(self._outage, "key", "")
            yield Problem(key, self._outage.reason, str(self._outage), self._outage.hint)
        for stored, failure in self._failed.items():
            yield Problem(stored.key, failure.error.reason, str(failure.error), failure.error.hint)
        gap = _gap_of(self._chains[0]) if self._chains else None
        if gap is not None:
            yield Problem(gap.key, gap.reason, str(gap), gap.hint)

    # ---- the end

    def _at_the_end(self) -> FollowEnd | None:
        """Whether a final snapshot was copied, and everything else that is wanted."""
        if not self._settings.until_final:
            return None
        final = newest_final(build_chains(self._listing.snapshots))
        if final is None:
            return None
        pending = [stored for stored in self._wanted if stored not in self._done]
        if any(stored not in self._failed or self._failed[stored].tries < TRIES for stored in pending):
            return None
        if final in self._failed:
            return FollowEnd.FAILED
        if self._final != final:
            self._final, self._final_s = final, self._now_s()
        waited_s = self._now_s() - (self._final_s or 0.0)
        if self._manifest_is_awaited(final) and waited_s < MANIFEST_PATIENCE_S:
            return None
        return FollowEnd.FINAL

    def _manifest_is_awaited(self, final: StoredSnapshot) -> bool:
        """Whether the source has manifests, and this copy was made without one."""
        others = any(self._has_manifest(stored) for stored in self._listing.snapshots)
        return others and self._done.get(final) is False

    # ---- what is told

    def _behind(self) -> Behind:
        missing = [stored for stored in self._wanted if stored not in self._done]
        newest = set(self._chains[0].snapshots) if self._chains else set()
        times = [stored.snapshot.created_s for stored in missing if stored in newest]
        age_s = self._transfer.clock.now().timestamp() - min(times) if times else 0.0
        return Behind(len(missing), sum(stored.size for stored in missing), max(0.0, age_s))

    def _newest_chain(self) -> ChainEnd | None:
        """Return the newest chain whose full is at the target, as far as its deltas are there without a hole."""
        if self._landing is None and self._chains:  # others copy the rest
            return ChainEnd(without_final(self._chains[0].full.name), self._chains[0].last)
        for chain in self._chains:
            if chain.full in self._done:
                there = Chain(chain.full, tuple(delta for delta in chain.deltas if delta in self._done))
                last = there.gaps[0].first - 1 if there.gaps else there.last
                newest = self._landing is not None and chain is self._chains[0]
                after_s = self._landing.restorable_after_s if newest and self._landing else None
                return ChainEnd(without_final(chain.full.name), last, after_s)
        return None

    def _state(self) -> str:
        behind, chain = self._behind(), self._newest_chain()
        revision = f", up to revision {chain.last_revision}" if chain is not None else ""
        if not behind.snapshots:
            return f"in step{revision}"
        snapshots = format_count(behind.snapshots, "snapshot")
        age = f", {format_duration(behind.seconds)}" if behind.seconds else ""
        return f"{snapshots} behind, {format_size(behind.bytes)}{age}{revision}"

    def _tell(self) -> None:
        """Say where the target is: a line when something was copied, else only what a display shows."""
        self._recovered()
        tally, state = self._copying.tally, self._state()
        self._transfer.progress.note(state, resting=next(self._missing(), None) is None)
        copied, size = tally.copied - self._told[0], tally.size - self._told[1]
        if copied:
            self._milestone("copied", f"{format_count(copied, 'snapshot')}, {format_size(size)}: {state}")
        self._told = tally.copied, tally.size

    def _milestone(self, what: str, detail: str, *, bad: bool = False) -> None:
        self._transfer.progress.tell(Milestone(self._transfer.clock.now(), "follow", what, detail, bad))

    def _now_s(self) -> float:
        return self._transfer.clock.monotonic_s()


def _gap_of(chain: Chain) -> RevisionGap | None:
    try:
        chain.require_contiguous()
    except RevisionGap as gap:
        return gap
    return None
