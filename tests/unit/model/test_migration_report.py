"""A report comes out of a ConfigMap that others can write to."""

import pytest

from backupagent.errors import MalformedContent
from backupagent.model.migration import (
    CopyProof,
    FinalSnapshot,
    MigrationReport,
    Phase,
    Step,
    config_map_name,
    decode_report,
    encode_report,
)

REPORT = MigrationReport(
    namespace="garden-dev",
    shoot="demo",
    source="seed-a",
    destination="seed-b",
    phase=Phase.COPYING,
    steps=(Step(name="MigrateStarted", who="gardenlet", at="2026-11-23T00:00:00.000Z"),),
    final=FinalSnapshot(name="Full-00000000-00000030-1795400591.gz.final", revision=30, bytes=7, hash_kv=1),
    copy=CopyProof(expected=4, present=3, missing=("x",)),
)


def test_what_is_written_can_be_read() -> None:
    assert decode_report(encode_report(REPORT), "the report") == REPORT


def test_fields_of_later_versions_are_ignored() -> None:
    text = encode_report(REPORT).replace('"namespace"', '"later": 1, "namespace"', 1)
    assert decode_report(text, "the report") == REPORT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        encode_report(REPORT).replace("Copying", "Flying"),
        encode_report(REPORT).replace("/v1", "/v2"),
    ],
)
def test_anything_else_is_refused_and_named(text: str) -> None:
    with pytest.raises(MalformedContent, match="the report") as refused:
        decode_report(text, "the report")
    assert refused.value.hint


@pytest.mark.parametrize("phase", Phase)
def test_a_report_ends_with_success_or_failure(phase: Phase) -> None:
    report = MigrationReport(namespace="n", shoot="s", source="a", destination="b", phase=phase)
    assert report.ended == (phase in {Phase.SUCCEEDED, Phase.FAILED})


@pytest.mark.parametrize(
    ("proof", "complete"),
    [
        (CopyProof(expected=0, present=0, newest_chain_verified=True), False),
        (CopyProof(expected=2, present=1, newest_chain_verified=True), False),
        (CopyProof(expected=2, present=2), False),
        (CopyProof(expected=2, present=2, newest_chain_verified=True), True),
    ],
)
def test_a_copy_is_complete_when_everything_is_there_and_was_read(proof: CopyProof, complete: bool) -> None:
    assert proof.complete is complete


def test_the_report_lies_beside_its_shoot() -> None:
    assert config_map_name("demo") == "demo.backupagent-migration"
