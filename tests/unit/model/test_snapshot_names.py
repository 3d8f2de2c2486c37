"""The grammar of snapshot names; golden names are those that the peer wrote."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.model.snapshot import Revision, Snapshot, SnapshotKind, StoredSnapshot, without_final

GOLDEN = Path(__file__).parents[2] / "golden"
GOLDEN_NAMES = sorted(path.name for path in GOLDEN.glob("*/v2/*"))

snapshots = st.builds(
    lambda numbers, created, kind, suffix, final: Snapshot(
        start=Revision(min(numbers)), last=Revision(max(numbers)), created_s=created, kind=kind, suffix=suffix,
        final=final,
    ),
    numbers=st.tuples(*[st.integers(0, 10**18 - 1)] * 2),
    created=st.integers(0, 10**12 - 1),
    kind=st.sampled_from(SnapshotKind),
    suffix=st.sampled_from(["", ".gz", ".zlib", ".Z", ".zst", ".other"]),
    final=st.booleans(),
)  # fmt: skip


def test_golden_names_are_there() -> None:
    assert len(GOLDEN_NAMES) == 28


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_names_of_the_peer_are_read_and_written_back(name: str) -> None:
    assert Snapshot.parse(name).name == name


def test_every_part_of_a_name_is_read() -> None:
    assert Snapshot.parse("Full-00000000-00000030-1795400662.gz.final") == Snapshot(
        last=Revision(30), start=Revision(0), created_s=1795400662, kind=SnapshotKind.FULL, suffix=".gz", final=True
    )
    assert Snapshot.parse("Incr-00000007-00000011-1795400593") == Snapshot(
        last=Revision(11), start=Revision(7), created_s=1795400593, kind=SnapshotKind.DELTA
    )


@given(snapshots)
def test_what_is_written_is_read_back(snapshot: Snapshot) -> None:
    assert Snapshot.parse(snapshot.name) == snapshot


@given(st.from_regex(r"(Full|Incr)-[0-9]{8,18}-[0-9]{8,18}-[0-9]{1,12}(\.(gz|zlib|Z|zst))?(\.final)?", fullmatch=True))
def test_the_grammar_is_accepted_unless_the_range_runs_backwards(name: str) -> None:
    start, last = (int(number) for number in name.split("-")[1:3])
    if start > last:
        with pytest.raises(ValueError, match="starts after its last revision"):
            Snapshot.parse(name)
    else:
        parsed = Snapshot.parse(name)
        assert (parsed.start, parsed.last, parsed.final) == (start, last, name.endswith(".final"))
        assert parsed.is_full == name.startswith("Full")


@given(st.text(alphabet="FulIncr-0123456789.gzZfina/\n\N{ARABIC-INDIC DIGIT THREE} ", max_size=60))
def test_near_misses_never_do_anything_but_parse_or_refuse(text: str) -> None:
    try:
        parsed = Snapshot.parse(text)
    except ValueError:
        return
    assert Snapshot.parse(parsed.name) == parsed


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Full",
        "full-00000000-00000006-1795400591",
        "Full-0000000-00000006-1795400591",
        "Full-00000000-00000006",
        "Full-00000000-00000006-1795400591.gz/0000000001",
        "v2/Full-00000000-00000006-1795400591.gz",
        "Full-00000000-00000006-1795400591.gz\n",
        "Full-00000000-00000006-1795400591.final.gz",
        "Full-00000000-00000006-1795400591.gz.zst",
        "Full-00000000-00000006-1795400591.gz.final.final",
        "Full-00000000-00000006-1795400591.",
        "Full-" + "\N{ARABIC-INDIC DIGIT ZERO}" * 8 + "-00000006-1795400591",
        "Full-00000000-9999999999999999999-1795400591",
        "Incr-00000012-00000011-1795400591.gz",
    ],
)
def test_other_names_are_refused_by_their_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a snapshot name|starts after its last revision") as caught:
        Snapshot.parse(name)
    assert repr(name) in str(caught.value)


def test_snapshots_order_by_last_revision_first() -> None:
    names = ["Full-00000000-00000009-3", "Incr-00000007-00000008-9", "Full-00000000-00000007-1"]
    assert [snapshot.name for snapshot in sorted(map(Snapshot.parse, names))] == names[::-1]


def test_a_copy_loses_the_final_mark_and_nothing_else() -> None:
    assert without_final("Full-00000000-00000030-1795400662.gz.final") == "Full-00000000-00000030-1795400662.gz"
    assert without_final("Incr-00000007-00000011-1795400593.gz") == "Incr-00000007-00000011-1795400593.gz"


@pytest.mark.parametrize("key", ["v2/Full-1", "a/b/v2/Full-1", "Full-1"])
def test_a_stored_snapshot_is_named_by_the_end_of_its_key(key: str) -> None:
    snapshot = Snapshot.parse("Full-00000000-00000006-1")
    assert StoredSnapshot(snapshot, key, size=1, etag="").name == "Full-1"
