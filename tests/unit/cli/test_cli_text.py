"""Reports for people: everything that matters is said, and nothing from a bucket can harm a terminal."""

import io
import sys
from dataclasses import replace

import pytest

from backupagent.cli import text, text_care
from backupagent.cli.commands import COMMANDS
from backupagent.cli.document import Cell, Document, Fields, Line, Table, Tone, printable, render_plain, render_terminal
from backupagent.cli.failure import exit_code_of
from backupagent.operations.report import (
    ChainEnd,
    CopyReport,
    LeaseCount,
    ListedChain,
    ListedSnapshot,
    ListReport,
    Problem,
    RestoreReport,
    SnapshotReport,
    VerifiedChain,
    VerifyReport,
)
from backupagent.progress import PhaseReport
from backupagent.units import MiB

PHASES = (PhaseReport("discover", 0.04, 0), PhaseReport("transfer", 4.0, 8 * MiB))

FULL = ListedSnapshot(
    name="Full-00000000-00000006-1795400591.gz",
    kind="Full",
    start_revision=0,
    last_revision=6,
    created="2026-11-23T02:23:11Z",
    size=3400,
    final=False,
    manifest=True,
)
FIRST = replace(FULL, name="Incr-00000007-00000011-1", kind="Incr", start_revision=7, last_revision=11, manifest=False)
LATE = replace(FIRST, name="Incr-00000018-00000019-1", start_revision=18, last_revision=19)
FINAL = replace(FULL, name="Full-00000000-00000030-1.gz.final", last_revision=30, final=True)

COPIED = CopyReport(
    seconds=4.2,
    phases=PHASES,
    copied=12,
    skipped=1,
    bytes=8 * MiB,
    bytes_reread=0,
    server_side_bytes=0,
    trailers_unchecked=0,
    newest_chain=ChainEnd("Full-1.gz", 91, 3.25),
    given_up_revisions=None,
)

SNAPSHOT = SnapshotReport(
    seconds=1.0,
    phases=PHASES,
    name="Full-1.gz",
    names=("Full-1.gz",),
    kind="Full",
    final=True,
    start_revision=0,
    last_revision=6,
    events=0,
    note="",
    manifest={
        "bytes": 8 * MiB,
        "stored_bytes": MiB,
        "hash_kv": 77,
        "hash_kv_revision": 6,
        "compact_revision": -1,
        "etcd_version": "3.5.35",
        "cluster_id": "cdf8",
    },
)

VERIFIED = VerifyReport(
    seconds=1.0,
    phases=PHASES,
    ok=True,
    problems=(),
    chains=(VerifiedChain("Full-1.gz", 19, 2, ok=True),),
    checked=3,
    bytes=8 * MiB,
)


def plain(document: Document) -> str:
    return render_plain(document)


def toned(document: Document, tone: Tone) -> list[str]:
    cells = [block.cell for block in document if isinstance(block, Line)]
    cells += [cell for block in document if isinstance(block, Fields) for _label, cell in block.rows]
    cells += [cell for block in document if isinstance(block, Table) for row in block.rows for cell in row]
    return [cell.text for cell in cells if cell.tone is tone]


def test_a_restore_tells_what_it_proved(restored: RestoreReport) -> None:
    page = plain(text.restore(restored))
    for needle in (
        "restored up to revision 91",
        "data directory    /var/lib/etcd/new.etcd",
        "Full-00000000-00000006-1795400591.gz, 5 deltas, 1,234 events",
        "HashKV            3433856483",
        "compact revision  25",
        "HashKV equals the one recorded with the snapshot",
        "3 kept, 2 made anew (1 with a guessed TTL, see --lease-ttl)",
        "cdf818194e3a8c32",
        "base    3.01 s  286.1 MiB  95.1 MiB/s",
        "in all  3.40 s",
    ):
        assert needle in page


@pytest.mark.parametrize(
    ("matches", "tone", "needle"),
    [(True, Tone.GOOD, "equals"), (False, Tone.BAD, "is NOT the one"), (None, Tone.WARN, "no HashKV is recorded")],
)
def test_a_restore_shows_the_verdict_in_its_colour(
    restored: RestoreReport,
    matches: bool | None,
    tone: Tone,
    needle: str,
) -> None:
    document = text.restore(replace(restored, matches_manifest=matches))
    assert any(needle in said for said in toned(document, tone))


def test_a_restore_warns_of_leases_that_are_not_as_they_were(restored: RestoreReport) -> None:
    report = replace(restored, leases=LeaseCount(0, 0, 0, dangling=2), compact_revision=-1)
    said = toned(text.restore(report), Tone.WARN)
    assert said == ["0 kept, 2 ids on keys without a lease: those keys stay for ever"]
    assert "compact revision  -1 (never)" in plain(text.restore(report))
    quiet = replace(restored, leases=LeaseCount(3, 2, 0, 0))
    assert toned(text.restore(quiet), Tone.WARN) == []


def test_a_listing_shows_chains_gaps_finals_orphans_and_strangers() -> None:
    report = ListReport(
        seconds=0.1,
        phases=(),
        store="s3://bucket/main",
        chains=(
            ListedChain(FINAL, (), 30, (), 3400),
            ListedChain(FULL, (FIRST, LATE), 11, ((12, 17),), 10200),
        ),
        orphans=(FIRST,),
        unreadable=("v2/\x1b[31mred\n",),
    )
    document = text.listing(report)
    page = plain(document)
    assert "s3://bucket/main: 2 chains\n" in page
    assert "restorable to revision 11, 2 deltas, 10.0 KiB\n  revisions 12 to 17 are missing\n" in page
    rows = [line.split() for line in page.splitlines()]
    assert rows[rows.index(["(missing)", "12-17"]) + 1][:2] == ["Incr-00000018-00000019-1", "18-19"]
    assert ["Full-00000000-00000006-1795400591.gz", "6", "2026-11-23T02:23:11Z", "3.3", "KiB", "manifest"] in rows
    assert "1 delta that no full snapshot can carry" in page
    assert "1 object whose name is no snapshot's\n  v2/\\x1b[31mred\\n\n" in page
    assert "revisions 12 to 17 are missing" in toned(document, Tone.BAD)
    assert "final, manifest" in toned(document, Tone.WARN)


def test_a_single_missing_revision_is_one_number() -> None:
    chain = ListedChain(FULL, (replace(FIRST, start_revision=8),), 6, ((7, 7),), 1)
    page = plain(text.listing(ListReport(seconds=0, phases=(), store="s", chains=(chain,), orphans=(), unreadable=())))
    assert "revisions 7 are missing" in page
    assert ["(missing)", "7"] in [line.split() for line in page.splitlines()]


def test_a_copy_tells_what_moved() -> None:
    page = plain(text.copy(COPIED))
    for needle in (
        "copied         12 snapshots, 8.0 MiB",
        "skipped        1 snapshot proven to be the same at the target",
        "rate           2.0 MiB/s",
        "newest chain   Full-1.gz",
        "restorable to  revision 91, after 3.25 s",
    ):
        assert needle in page
    for label in ("read again", "server side", "unchecked", "given up"):
        assert label not in page


def test_a_copy_tells_what_was_left_out() -> None:
    report = replace(
        COPIED,
        bytes_reread=MiB,
        server_side_bytes=2 * MiB,
        server_side_refused="copy 'a' in s3://b: AccessDenied",
        trailers_unchecked=2,
        given_up_revisions=(92, 97),
    )
    document = text.copy(report)
    page = plain(document)
    assert "read again       1.0 MiB of parts that were uploaded before" in page
    assert "server side      2.0 MiB copied by the store itself" in page
    assert "not server side  copy 'a' in s3://b: AccessDenied" in page
    assert "2 snapshots without a check of its own sha256; `backupagent verify` does it" in page
    assert toned(document, Tone.BAD) == ["revisions 92 to 97: no final snapshot appeared"]


def test_a_share_does_not_claim_that_its_target_can_be_restored() -> None:
    page = plain(text.copy(replace(COPIED, newest_chain=ChainEnd("Full-1.gz", 91))))
    assert "reaches       revision 91, when all shares are copied" in page
    assert "restorable" not in page


def test_an_end_that_nobody_knows_is_not_a_revision() -> None:
    document = text.copy(replace(COPIED, given_up_revisions=(92, -1)))
    assert toned(document, Tone.BAD) == ["every revision from 92 on: no final snapshot appeared"]


def test_a_copy_of_nothing_says_so() -> None:
    page = plain(text.copy(replace(COPIED, copied=0, bytes=0, phases=())))
    assert page.startswith("nothing to copy: the target is in step\n")
    assert "rate " not in page


def test_a_full_snapshot_shows_its_manifest() -> None:
    page = plain(text.snapshot(SNAPSHOT))
    for needle in (
        "full snapshot taken",
        "snapshot  Full-1.gz",
        "revision  6",
        "final     yes",
        "content   8.0 MiB, stored as 1.0 MiB",
        "HashKV    77 at revision 6, never compacted",
        "etcd      3.5.35, cluster cdf8",
    ):
        assert needle in page


def test_a_snapshot_without_a_manifest_shows_what_is_known() -> None:
    nothing = dict.fromkeys(SNAPSHOT.manifest)
    page = plain(text.snapshot(replace(SNAPSHOT, manifest=nothing, final=False, note="look out")))
    assert "final     no" in page
    assert "note: look out" in page
    for label in ("content ", "HashKV", "etcd "):
        assert label not in page


def test_a_compacted_source_is_shown() -> None:
    page = plain(text.snapshot(replace(SNAPSHOT, manifest=SNAPSHOT.manifest | {"compact_revision": 3})))
    assert "compacted at revision 3" in page


def test_deltas_show_their_revisions_and_all_their_names() -> None:
    report = replace(
        SNAPSHOT,
        kind="Incr",
        name="Incr-2",
        names=("Incr-1", "Incr-2"),
        start_revision=7,
        last_revision=11,
        events=1500,
    )
    page = plain(text.snapshot(report))
    for needle in ("delta snapshot taken", "snapshot   Incr-1", "snapshot   Incr-2", "7 to 11", "1,500"):
        assert needle in page


def test_an_idle_etcd_needs_no_delta() -> None:
    page = plain(text.snapshot(replace(SNAPSHOT, kind="Incr", name=None, names=())))
    assert page.startswith("nothing new after revision 6: no delta was written\n")


def test_a_verification_without_a_problem() -> None:
    document = text.verification(VERIFIED)
    page = plain(document)
    assert page.startswith("no problem: 3 objects read, 8.0 MiB\n")
    assert ["Full-1.gz", "19", "2", "whole"] in [line.split() for line in page.splitlines()]


def test_a_verification_tells_each_problem_and_what_to_do() -> None:
    problems = (
        Problem("v2/Incr-1", "RevisionGap", "v2/Incr-1: revisions are missing", "take a new full snapshot"),
        Problem("v2/Incr-2", "ObjectNotFound", "gone"),
    )
    report = replace(VERIFIED, ok=False, problems=problems, chains=())
    document = text.verification(report)
    page = plain(document)
    assert page.startswith("2 problems: 3 objects read, 8.0 MiB\n")
    assert "  RevisionGap: v2/Incr-1: revisions are missing\n  hint: take a new full snapshot\n" in page
    assert "  ObjectNotFound: v2/Incr-2: gone\n" in page
    damaged = replace(report, chains=(VerifiedChain("Full-1.gz", 19, 2, ok=False),))
    assert "damaged" in toned(text.verification(damaged), Tone.BAD)


@pytest.mark.parametrize(
    ("reasons", "code"),
    [
        (["RevisionGap"], 24),
        (["ChecksumMismatch", "ChecksumMismatch"], 21),
        (["RevisionGap", "ChecksumMismatch"], 40),
        (["SomethingElse"], 40),
        ([], 40),
    ],
)
def test_problems_decide_the_exit_code(reasons: list[str], code: int) -> None:
    assert exit_code_of(reasons) == code


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("v2/ä 語", "v2/ä 語"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\udc80", r"\udc80"),
        ("\u202e", r"\u202e"),
    ],
)
def test_only_printable_characters_are_shown(raw: str, shown: str) -> None:
    assert printable(raw) == shown


DOCUMENT: Document = [
    Line(Cell("title \x1b", Tone.GOOD)),
    Line(Cell("indented", Tone.BAD), 2),
    Fields([("label", Cell("value", Tone.STRONG))]),
    Table(["NAME", "N"], [[Cell("x" * 90), Cell("7")]], frozenset({1})),
]


def test_plain_text_has_neither_colours_nor_trailing_space() -> None:
    assert render_plain(DOCUMENT) == (
        f"title \\x1b\n  indented\n  label  value\n  NAME{' ' * 86}  N\n  {'x' * 90}  7\n"
    )
    assert render_plain([Fields([])]) == ""


def test_a_terminal_gets_colours_and_whole_names(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    render_terminal(DOCUMENT)
    written = out.getvalue()
    assert "\x1b[32mtitle \\x1b\x1b[0m" in written
    assert "\x1b[1;31mindented" in written
    assert "x" * 90 in written, "a name can be copied from one line"


def test_every_command_that_reports_can_show_it() -> None:
    shown = {command.name: command.show for command in COMMANDS.values() if command.reports}
    # In a file of their own, imported when there is something to show: test_cli_text_migrations.py.
    assert {"migrate", "migrations"} <= shown.keys()
    del shown["migrate"], shown["migrations"]
    # In another: test_cli_care.py.
    assert {shown.pop("doctor"), shown.pop("gc")} == {text_care.checks, text_care.collection}
    assert shown == {
        "snapshot": text.snapshot,
        "copy": text.copy,
        "restore": text.restore,
        "list": text.listing,
        "verify": text.verification,
    }
