"""Events byte for byte as the peer writes them, and read back however they arrive."""

import base64
import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.errors import MalformedContent
from backupagent.model import event as event_module
from backupagent.model.event import (
    DELETE,
    PUT,
    Change,
    Event,
    KeyValue,
    decode_events,
    encode_event,
    encode_events,
    format_time,
)

GOLDEN_DELTAS = sorted((Path(__file__).parents[2] / "golden" / "none" / "v2").glob("Incr-*"))

SAMPLES = {
    "put": (
        (
            b'{"etcdEvent":{"kv":{"key":"L2QxL2sx","create_revision":7,"mod_revision":7,"version":1,"value":"djE="}},'
            b'"time":"2026-11-23T02:23:29.76737935Z"}'
        ),
        Event(
            Change(kv=KeyValue(key=b"/d1/k1", create_revision=7, mod_revision=7, version=1, value=b"v1")),
            "2026-11-23T02:23:29.76737935Z",
        ),
    ),
    "empty value": (
        b'{"etcdEvent":{"kv":{"key":"L2QxL2VtcHR5","create_revision":10,"mod_revision":10,"version":1}},"time":"t"}',
        Event(Change(kv=KeyValue(key=b"/d1/empty", create_revision=10, mod_revision=10, version=1)), "t"),
    ),
    "delete": (
        b'{"etcdEvent":{"type":1,"kv":{"key":"L3ByZS9h","mod_revision":15}},"time":"t"}',
        Event(Change(type=DELETE, kv=KeyValue(key=b"/pre/a", mod_revision=15)), "t"),
    ),
    "lease": (
        (
            b'{"etcdEvent":{"kv":{"key":"L2Q0L2xlYXNlZC1sb25n","create_revision":20,"mod_revision":20,"version":1,'
            b'"value":"eA==","lease":8278357212637664030}},"time":"t"}'
        ),
        Event(
            Change(
                kv=KeyValue(
                    key=b"/d4/leased-long",
                    create_revision=20,
                    mod_revision=20,
                    version=1,
                    value=b"x",
                    lease=8278357212637664030,
                )
            ),
            "t",
        ),
    ),
}

int64 = st.integers(-(2**63), 2**63 - 1)
events = st.builds(
    Event,
    etcdEvent=st.builds(
        Change,
        type=st.sampled_from([PUT, DELETE]),
        kv=st.builds(
            KeyValue,
            key=st.binary(max_size=40) | st.just(b',{"etcdEvent":'),
            create_revision=int64,
            mod_revision=int64,
            version=int64,
            value=st.binary(max_size=40),
            lease=int64,
        ),
    ),
    time=st.sampled_from(["", "2026-11-23T02:23:29.76737935Z", "2026-11-23T02:23:29+01:00"]),
)


def as_delta(items: list[Event]) -> bytes:
    return b"[" + b",".join(map(encode_event, items)) + b"]"


def decode(pieces: list[bytes]) -> list[Event]:
    return [event for batch in decode_events(pieces, "v2/Incr") for event in batch]


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_of_the_peer_are_written_byte_for_byte(name: str) -> None:
    encoded, decoded = SAMPLES[name]
    assert encode_event(decoded) == encoded
    assert decode([b"[" + encoded + b"]"]) == [decoded]


def test_golden_deltas_are_there() -> None:
    assert len(GOLDEN_DELTAS) == 5


@pytest.mark.parametrize("path", GOLDEN_DELTAS, ids=lambda path: path.name)
def test_golden_deltas_are_written_back_byte_for_byte(path: Path) -> None:
    content = path.read_bytes()[:-32]
    decoded = decode([content])
    assert len(decoded) == len(json.loads(content))
    assert as_delta(decoded) == content
    assert b"[" + encode_events(decoded) + b"]" == content


@given(st.lists(events, max_size=6), st.lists(st.integers(0, 2000), max_size=12))
def test_a_delta_may_be_cut_anywhere(items: list[Event], cuts: list[int]) -> None:
    content = as_delta(items)
    bounds = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    assert decode([content[start:end] for start, end in pairwise(bounds)]) == items


@given(st.lists(events, min_size=1, max_size=3))
def test_a_delta_may_come_byte_by_byte(items: list[Event]) -> None:
    content = as_delta(items)
    assert decode([content[index : index + 1] for index in range(len(content))]) == items


@given(events)
def test_events_are_what_any_json_reader_reads(event: Event) -> None:
    read = json.loads(encode_event(event))
    kv = read["etcdEvent"]["kv"]
    assert base64.b64decode(kv.get("key", ""), validate=True) == event.etcdEvent.kv.key
    assert kv.get("lease", 0) == event.etcdEvent.kv.lease
    assert "lease" not in kv or kv["lease"] != 0


def test_events_come_while_the_content_still_arrives() -> None:
    items = [SAMPLES["put"][1], SAMPLES["delete"][1], SAMPLES["lease"][1]]
    content = as_delta(items)
    first_two = content.rindex(b',{"etcdEvent"') + 20
    batches = decode_events(iter([content[:first_two], content[first_two:]]), "v2/Incr")
    assert next(batches) == items[:2]
    assert next(batches) == items[2:]


def test_white_space_of_other_writers_is_read() -> None:
    assert decode([b'[ {"etcdEvent": {"kv": {"key": "YQ=="}}, "time": "t"} ]']) == [
        Event(Change(kv=KeyValue(key=b"a")), "t")
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"{}",
        b"null",
        b"[1]",
        b'[{"time":"t"}]',
        b'[{"etcdEvent":{"kv":{"key":"not base64!"}},"time":"t"}]',
        b'[{"etcdEvent":{"kv":{"mod_revision":"7"}},"time":"t"}]',
        b'[{"etcdEvent":{"kv":{"mod_revision":7.5}},"time":"t"}]',
        b'[{"etcdEvent":{"kv":{}},"time":"t"}',
        b'[{"etcdEvent":{"kv":{}},"time":"t"}]x',
        b"\xff\xfe",
    ],
)
def test_anything_else_is_malformed(content: bytes) -> None:
    with pytest.raises(MalformedContent, match="v2/Incr: not the JSON of a delta"):
        decode([content])


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_hostile_bytes_are_refused_or_read_but_nothing_else(content: bytes, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    # Anything but a list of events or this error would be a crash of whoever reads a bucket; cuts change nothing.
    outcomes = []
    for pieces in ([content], [content[start:end] for start, end in pairwise(bounds)]):
        try:
            outcomes.append(decode(pieces))
        except MalformedContent:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


def test_an_endless_event_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_module, "MAX_EVENT_SIZE", 1000)
    pulled = 0

    def endless() -> object:
        nonlocal pulled
        yield b'[{"etcdEvent":{"kv":{"key":"'
        while True:
            pulled += 1
            yield b"A" * 100

    with pytest.raises(MalformedContent, match="an event of more than 1000 bytes"):
        list(decode_events(endless(), "v2/Incr"))  # type: ignore[arg-type] # a generator of bytes
    assert pulled == 10


@pytest.mark.parametrize(
    ("microsecond", "text"),
    [
        (0, "2026-11-23T02:23:29Z"),
        (760000, "2026-11-23T02:23:29.76Z"),
        (1, "2026-11-23T02:23:29.000001Z"),
        (123456, "2026-11-23T02:23:29.123456Z"),
    ],
)
def test_times_are_written_as_go_does(microsecond: int, text: str) -> None:
    assert format_time(datetime(2026, 11, 23, 2, 23, 29, microsecond, UTC)) == text
