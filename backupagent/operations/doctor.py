"""Stores checked before they are used: what is reachable, allowed, whole, and how long a copy will take.

A source is listed and read, nothing else. In a target a probe object and a few parts are written below its
manifests, and removed again where nothing keeps them.
"""

import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from backupagent.errors import BackupAgentError, Cancelled, ConfigError, StoreError, StoreUnavailable
from backupagent.model.chain import Chain, build_chains
from backupagent.operations.findings import (
    Finding,
    Measured,
    aged,
    delete,
    failed,
    ok,
    read_back,
    server_side,
    untested,
    warning,
)
from backupagent.operations.report_care import Check, CheckStatus, DoctorReport
from backupagent.settings import DoctorSettings
from backupagent.snapstore import SnapStore
from backupagent.snapstore.unfinished import find_unfinished
from backupagent.stores.base import ObjectStore, StoreFacts, facts_of
from backupagent.transfer.context import Transfer
from backupagent.transfer.crew import map_ordered
from backupagent.units import MiB, format_count, format_duration, format_size

T = TypeVar("T")

Opener = Callable[[], AbstractContextManager[SnapStore]]

PIECE_SIZE = 4 * MiB
"""Bytes of one ranged read while the source is measured."""

PART_SIZE = 5 * MiB
"""Bytes of a part while the target is measured: the smallest that S3 takes."""

PARTS = 4
WORKERS = 8
"""Requests at once while a store is measured."""

SMALL_AT_ONCE = 32
"""How many small objects a copy moves at once to begin with."""

SKEW_S = 60.0
"""How far clocks may be apart before it is worth a word, seconds."""

REFUSED_SKEW_S = 900.0
"""How far S3 lets them be apart: beyond it every request is refused (RequestTimeTooSkewed)."""

STALE_S = 24 * 3600.0
"""Age of an upload that nobody will end any more; the default of ``gc --older-than``."""

SERVER_SIDE = "server-side copy"

TARGET_CHECKS = ("retention", "put", "read", "clock", "delete", "multipart", "unfinished uploads")
"""Of a target, after it was listed."""


@dataclass
class _Findings:
    """What is known by now."""

    checks: list[Check] = field(default_factory=list)
    chains: tuple[Chain, ...] = ()
    kept: str = ""
    """Why nothing that is written to the target can be removed again; empty when it can."""
    read: Measured | None = None
    written: Measured | None = None


class Doctor:
    """Checks a source, a target, or both.

    Args:
        source: Opens the source; None when there is none to check.
        target: Opens the target; likewise.
        settings: How much to read.
        transfer: Whom to tell and when to stop.

    Raises:
        ConfigError: there is nothing to check.
    """

    def __init__(
        self, source: Opener | None, target: Opener | None, settings: DoctorSettings, transfer: Transfer
    ) -> None:
        if source is None and target is None:
            raise ConfigError("say what to check: --source, --target, or both")
        self._openers = {"source": source, "target": target}
        self._settings = settings
        self._transfer = transfer
        self._found = _Findings()

    def run(self) -> DoctorReport:
        """Make all checks; what fails is in the report.

        Raises:
            Cancelled: the transfer's token was set.
        """
        progress = self._transfer.progress
        with ExitStack() as opened:
            source = self._open("source", opened)
            target = self._open("target", opened)
            if source is not None:
                with progress.phase("source"):
                    self._check_source(source)
            if target is not None:
                with progress.phase("target"):
                    self._check_target(target)
            if source is not None and target is not None:
                self._check_both(source, target)
        expected_s = self._expected_s()
        if self._openers["source"] is not None:
            self._add("duration", "both" if self._openers["target"] else "source", self._duration(expected_s))
        checks = tuple(self._found.checks)
        return DoctorReport(
            ok=all(check.status is not CheckStatus.FAILED for check in checks),
            checks=checks,
            expected_s=expected_s,
            seconds=progress.elapsed_s,
            phases=tuple(progress.phases),
        )

    # ---- how checks are made

    def _add(self, name: str, side: str, finding: Finding) -> bool:
        found = Check(name, side, finding.status, finding.detail, finding.hint, finding.reason)
        self._found.checks.append(found)
        return found.status is not CheckStatus.FAILED

    def _check(self, name: str, side: str, look: Callable[[], Finding]) -> bool:
        """Make a check; return whether it did not fail."""
        self._transfer.cancel.raise_if_set()
        self._transfer.progress.note(f"{side}: {name}")
        try:
            finding = look()
        except Cancelled:
            raise
        except BackupAgentError as error:
            finding = failed(error)
        return self._add(name, side, finding)

    def _cannot_be_reached(self, side: str, names: Sequence[str]) -> bool:
        """Whether the last check found nobody there: then the others would only take long to say it again."""
        if self._found.checks[-1].reason != StoreUnavailable.__name__:
            return False
        for name in names:
            self._add(name, side, untested("the store cannot be reached"))
        return True

    def _open(self, side: str, opened: ExitStack) -> SnapStore | None:
        opener = self._openers[side]
        if opener is None:
            return None
        try:
            return opened.enter_context(opener())
        except Cancelled:
            raise
        except BackupAgentError as error:
            self._add("open", side, failed(error))
            return None

    # ---- source

    def _check_source(self, source: SnapStore) -> None:
        listed = self._check("list", "source", lambda: self._list(source, may_be_empty=False))
        if self._cannot_be_reached("source", ("read", "retention", "clock")):
            return
        if not listed:
            self._add("read", "source", untested("nothing is listed that could be read"))
        else:
            self._check("chains", "source", self._judge_chains)
            self._check("read", "source", lambda: self._read(source.store))
        facts = self._facts(source.store, "source")
        self._check("clock", "source", lambda: self._clock(source.store, facts.time_s))

    def _list(self, where: SnapStore, *, may_be_empty: bool) -> Finding:
        listing = where.list()
        chains = build_chains(listing.snapshots)
        if not may_be_empty:
            if not chains:
                raise where.empty(listing)
            self._found.chains = chains
        if not listing.snapshots:
            return ok(f"no snapshot below {where.layout.snapshots!r} yet")
        snapshots = format_count(len(listing.snapshots), "snapshot")
        size = sum(stored.size for stored in listing.snapshots)
        words = f"{snapshots}, {format_size(size)}; {format_count(len(listing.manifests), 'manifest')}"
        if listing.unreadable:
            names = f"{format_count(len(listing.unreadable), 'name')} among them that no snapshot has"
            return warning(f"{words}; {names}, e.g. {listing.unreadable[0]}", "`backupagent list` names them all")
        return ok(words)

    def _judge_chains(self) -> Finding:
        newest, *older = self._found.chains
        newest.require_contiguous()
        words = (
            f"newest: {newest.full.name} with {format_count(len(newest.deltas), 'delta')}, up to revision {newest.last}"
        )
        holes = [chain.full.name for chain in older if chain.gaps]
        if holes:
            hint = "they are copied as they are; `backupagent list` shows what is missing"
            return warning(
                f"{words}; revisions are missing in {format_count(len(holes), 'older chain')}, e.g. {holes[0]}", hint
            )
        return ok(f"{words}, contiguous; {len(older)} older")

    def _read(self, store: ObjectStore) -> Finding:
        """Read ranges of the newest chain, several at a time."""
        pieces: list[tuple[str, str, int, int]] = []
        left = self._settings.sample
        for stored in self._found.chains[0].snapshots:
            size = min(stored.size, left)
            pieces += [
                (stored.key, stored.etag, offset, min(PIECE_SIZE, size - offset))
                for offset in range(0, size, PIECE_SIZE)
            ]
            left -= size

        def read(piece: tuple[str, str, int, int]) -> int:
            key, etag, offset, size = piece
            store.read_into(key, memoryview(bytearray(size)), offset=offset, etag=etag)
            return size

        newest = self._found.chains[0].full
        round_trip_s, _info = self._timed(lambda: store.stat(newest.key))
        took_s, sizes = self._timed(lambda: map_ordered(read, pieces, workers=WORKERS, cancel=self._transfer.cancel))
        self._found.read = Measured(sum(sizes), took_s, round_trip_s)
        return ok(f"{self._found.read.words}, in {format_count(len(pieces), 'request')}, {WORKERS} at once")

    # ---- target

    def _check_target(self, target: SnapStore) -> None:
        self._check("list", "target", lambda: self._list(target, may_be_empty=True))
        if self._cannot_be_reached("target", TARGET_CHECKS):
            return
        facts = self._facts(target.store, "target")
        if target.store.features.remote and (facts.retention != "" or facts.versioning):
            older = "older versions are kept" if facts.versioning else "retention is not known"
            self._found.kept = facts.retention or older
        self._probe(target, facts)
        self._check("multipart", "target", lambda: self._multipart(target, facts))
        self._check("unfinished uploads", "target", lambda: self._unfinished(target))

    def _facts(self, store: ObjectStore, side: str) -> StoreFacts:
        """Ask a store about itself; what it refuses to tell is no failure."""
        try:
            facts = facts_of(store)
        except StoreError as error:
            facts = StoreFacts(untold=(str(error),))
        self._add("retention", side, self._retention(store, facts))
        return facts

    def _retention(self, store: ObjectStore, facts: StoreFacts) -> Finding:
        if not store.features.remote:
            return ok("none: it is on this machine")
        versions = {None: [], True: ["what is deleted stays for a time"], False: ["no versions"]}[facts.versioning]
        kept = {None: [], "": ["no retention"]}.get(facts.retention, [str(facts.retention)])
        words = ", ".join([*kept, *versions, *(f"not told: {reason}" for reason in facts.untold)])
        if facts.retention:
            return warning(words, "journal entries and the probe stay until it ends; given-up uploads may too")
        return ok(words) if facts.retention == "" else untested(words or "the store does not tell it")

    def _clock(self, store: ObjectStore, time_s: float | None) -> Finding:
        if not store.features.remote:
            return ok("the one of this machine")
        if time_s is None:
            return untested("the store does not tell its time")
        skew_s = self._transfer.clock.now().timestamp() - time_s
        words = f"this machine is {format_duration(abs(skew_s))} {'ahead' if skew_s > 0 else 'behind'}"
        hint = "set the clock of this machine right: signatures hold for 15 minutes, and ages are counted by it"
        if abs(skew_s) >= REFUSED_SKEW_S:
            return Finding(CheckStatus.FAILED, words, hint, StoreError.__name__)
        return warning(words, hint) if abs(skew_s) >= SKEW_S else ok(f"less than {SKEW_S:.0f} s apart")

    def _probe(self, target: SnapStore, facts: StoreFacts) -> None:
        """Write an object, look at it from all sides, and remove it unless something keeps it."""
        store, content = target.store, secrets.token_bytes(64)
        # Where it cannot be removed the next run writes it anew, instead of one more.
        kept = self._found.kept
        key = f"{target.layout.manifests}doctor-probe{'' if kept else '-' + secrets.token_hex(8)}"
        if not self._check("put", "target", lambda: ok(f"{store.put(key, content).size} bytes as {key}")):
            for name in ("read", "delete"):
                self._add(name, "target", untested("the probe could not be written"))
            self._check("clock", "target", lambda: self._clock(store, facts.time_s))
            return
        self._check("read", "target", lambda: read_back(store, key, content))
        self._check("clock", "target", lambda: self._clock(store, facts.time_s or store.stat(key).modified_s))
        if kept:
            self._add("delete", "target", untested(f"{kept}; the probe stays as {key}"))
        else:
            self._check("delete", "target", lambda: delete(store, key))

    def _multipart(self, target: SnapStore, facts: StoreFacts) -> Finding:
        """Begin an upload, write a few parts at once, and abort it."""
        store = target.store
        if facts.retention and store.limits.min_part < PART_SIZE:
            return untested(f"parts are objects or blocks of their own, and would stay: {facts.retention}")
        size = max(PART_SIZE, store.limits.min_part)
        data = secrets.token_bytes(size)
        key = f"{target.layout.manifests}doctor-probe-parts"
        round_trip_s, upload = self._timed(lambda: store.begin_upload(key, part_size=size))
        try:
            took_s, tags = self._timed(
                lambda: map_ordered(
                    lambda number: store.upload_part(upload, number, data),
                    range(1, PARTS + 1),
                    workers=PARTS,
                    cancel=self._transfer.cancel,
                )
            )
            held = len(store.list_parts(upload))
        except BaseException:
            with suppress(BackupAgentError):
                store.abort_upload(upload)
            raise
        store.abort_upload(upload)
        self._found.written = Measured(size * len(tags), took_s, round_trip_s)
        lasting = "; the service removes them within a week" if store.features.lasting_parts else ""
        return ok(f"{self._found.written.words}, in {held} parts, aborted{lasting}")

    def _unfinished(self, target: SnapStore) -> Finding:
        found = find_unfinished(target)
        if not found:
            return ok("none")
        now_s = self._transfer.clock.now().timestamp()
        stale = [each for each in found if each.alive_s is not None and now_s - each.alive_s >= STALE_S]
        young = f"{len(found) - len(stale)} younger than {format_duration(STALE_S)}, of a copy that may be at work"
        if not stale:
            return ok(young)
        listed = ", ".join(aged(each, now_s) for each in stale[:3])
        words = f"{len(stale)} left by copies that did not end: {listed}{', ...' if len(stale) > 3 else ''}"  # noqa: PLR2004
        hint = "`backupagent gc --incomplete` removes them"
        return warning(words if len(stale) == len(found) else f"{words}; {young}", hint)

    # ---- both

    def _check_both(self, source: SnapStore, target: SnapStore) -> None:
        same = (source.display, source.layout.prefix) == (target.display, target.layout.prefix)
        error = ConfigError(f"source and target are the same: {source.display}", hint="name another bucket or prefix")
        self._add("two places", "both", failed(error) if same else ok("source and target differ"))
        if same:
            self._add(SERVER_SIDE, "both", untested("source and target are the same"))
            return
        kept = self._found.kept
        self._check(SERVER_SIDE, "both", lambda: server_side(source, target, self._found.chains, kept=kept))

    def _expected_s(self) -> float | None:
        """Estimate a copy: by bytes at the slower of the two rates, or by round trips where objects are many."""
        measured = [each for each in (self._found.read, self._found.written) if each is not None and each.rate]
        if not measured or not self._found.chains:
            return None
        snapshots = [stored for chain in self._found.chains for stored in chain.snapshots]
        by_bytes = sum(stored.size for stored in snapshots) / min(each.rate for each in measured)
        by_requests = len(snapshots) * sum(each.round_trip_s for each in measured) / SMALL_AT_ONCE
        return max(by_bytes, by_requests)

    def _duration(self, expected_s: float | None) -> Finding:
        if expected_s is None:
            return untested("nothing was measured")
        size = sum(chain.size for chain in self._found.chains)
        newest = self._found.chains[0].size
        read, written = self._found.read, self._found.written
        basis = [
            *([f"{read.words} read from the source"] if read is not None else []),
            *([f"{written.words} written to the target"] if written is not None else []),
        ]
        first = f"the newest chain, {format_size(newest)}, comes first"
        about = f"about {format_duration(expected_s)} for all {format_size(size)}; {first}"
        return ok(f"{about} (by {', '.join(basis)})")

    def _timed(self, call: Callable[[], T]) -> tuple[float, T]:
        began_s = self._transfer.clock.monotonic_s()
        result = call()
        return self._transfer.clock.monotonic_s() - began_s, result
