"""``docs/formats.md`` says what is true: its samples are those of the golden buckets, its tables those of the code."""

import re
from pathlib import Path

import pytest

from backupagent.codecs import CODECS
from backupagent.model.manifest import METADATA_KEY, Manifest, decode_manifest
from backupagent.model.snapshot import Snapshot

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "formats.md").read_text()
GOLDEN = ROOT / "tests" / "golden"

DUMP_LINE = re.compile(r"^(?P<offset>[0-9a-f]{8}): (?P<bytes>(?:[0-9a-f]{2,4} )*[0-9a-f]{2,4})\b", re.MULTILINE)


def section(number: int) -> str:
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def first_cells(text: str) -> list[str]:
    return [name for row in re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)]


@pytest.mark.parametrize(("number", "lines"), [(3, 5), (4, 5)])
def test_hexdumps_are_those_of_the_objects_they_name(number: int, lines: int) -> None:
    text = section(number)
    named = re.search(r"`tests/golden/(none/v2/[^`]*)`, ([0-9,]+) bytes", text)
    assert named is not None
    content = (GOLDEN / named[1]).read_bytes()
    assert len(content) == int(named[2].replace(",", ""))
    dumped = list(DUMP_LINE.finditer(text))
    assert len(dumped) == lines
    for line in dumped:
        shown = bytes.fromhex(line["bytes"].replace(" ", ""))
        offset = int(line["offset"], 16)
        assert content[offset : offset + len(shown)] == shown


def test_names_shown_are_in_the_golden_buckets() -> None:
    names = re.findall(r"^((?:Full|Incr)-[0-9]{8}-[0-9]\S*)", section(2), re.MULTILINE)
    assert len(names) == 4
    assert set(names) <= {path.name for path in GOLDEN.glob("*/v2/*")}
    assert all(Snapshot.parse(name).name == name for name in names)


def test_events_shown_are_in_the_golden_buckets() -> None:
    deltas = b"".join(path.read_bytes() for path in (GOLDEN / "none" / "v2").glob("Incr-*"))
    events = re.findall(r'^\w+ +(\{"etcdEvent".*?)"time"', section(4), re.MULTILINE)
    assert len(events) == 3
    assert all(event.encode() in deltas for event in events)


def test_the_table_of_compressions_is_the_code_s() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:`(\.\w+)`)? ?\| [^|]*\| (\w+)", section(5), re.MULTILINE)
    assert {(name, suffix, written == "yes") for name, suffix, written in rows} == {
        (codec.name, codec.suffix, codec.encoder is not None) for codec in CODECS.values()
    }


def test_every_field_of_a_manifest_is_described() -> None:
    assert first_cells(section(6)) == list(Manifest.__struct_fields__)
    assert f"named `{METADATA_KEY}`" in section(6)


def test_the_example_of_a_manifest_is_one() -> None:
    example = re.search(r"```json\n(.*?)```", section(6), re.DOTALL)
    assert example is not None
    manifest = decode_manifest(example[1].encode(), "docs/formats.md")
    assert Snapshot.parse(manifest.name).name == manifest.name
