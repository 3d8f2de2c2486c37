"""Manifests: small, ordered, forward compatible, and never half believed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.errors import MalformedContent
from backupagent.model.manifest import (
    FORMAT,
    Manifest,
    SourceObject,
    decode_manifest,
    encode_manifest,
    manifest_fields,
)

FULL = Manifest(
    format=FORMAT,
    name="Full-00000000-00000042-1795400591.gz",
    kind="Full",
    final_at_source=True,
    revision_before=42,
    revision_after=42,
    revision=42,
    created="2026-11-23T02:23:11Z",
    bytes=28672,
    stored_bytes=3412,
    sha256="ab" * 32,
    stored_sha256="cd" * 32,
    hash_kv=3433856483,
    hash_kv_revision=42,
    compact_revision=-1,
    etcd_version="3.5.35",
    cluster_id="8a02a4b2f9d5b55e",
    leases={"8278357212637664030": 3600},
    source=SourceObject(size=3412, etag='"1"'),
)


def test_a_manifest_is_read_back() -> None:
    assert decode_manifest(encode_manifest(FULL), "k") == FULL


def test_what_is_not_known_takes_no_room() -> None:
    smallest = Manifest(format=FORMAT, name="x", kind="Incr")
    assert json.loads(encode_manifest(smallest)) == {"format": FORMAT, "name": "x", "kind": "Incr"}


def test_the_order_of_leases_does_not_change_the_bytes() -> None:
    forth = Manifest(format=FORMAT, name="x", kind="Full", leases={"1": 5, "2": 6})
    back = Manifest(format=FORMAT, name="x", kind="Full", leases={"2": 6, "1": 5})
    assert encode_manifest(forth) == encode_manifest(back)


@given(st.text(), st.dictionaries(st.from_regex(r"-?[0-9]{1,19}", fullmatch=True), st.integers(1, 9_000_000_000)))
def test_it_is_ascii_for_use_as_metadata_whenever_its_name_is(name: str, leases: dict[str, int]) -> None:
    manifest = Manifest(format=FORMAT, name="x", kind="Incr", etcd_version=name, leases=leases)
    if name.isascii():
        assert encode_manifest(manifest).isascii()
    assert decode_manifest(encode_manifest(manifest), "k") == manifest


def test_fields_of_later_versions_are_ignored() -> None:
    later = json.loads(encode_manifest(FULL)) | {"merkle": [1, 2], "source": {"size": 1, "etag": "e", "region": "x"}}
    assert decode_manifest(json.dumps(later).encode(), "k").source == SourceObject(size=1, etag="e")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format":"backupagent.manifest/v1","name":"x"}',
        b'{"format":"backupagent.manifest/v1","name":"x","kind":"Full","bytes":"1"}',
        b'{"format":"backupagent.manifest/v1","name":"x","kind":"Full","leases":{"1":"5"}}',
        b"\xff",
    ],
)
def test_damaged_manifests_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedContent, match=r"manifests/x\.json: not a manifest"):
        decode_manifest(data, "manifests/x.json")


def test_another_format_is_refused_by_its_name() -> None:
    with pytest.raises(MalformedContent, match=r"manifest format 'backupagent\.manifest/v9', this program reads"):
        decode_manifest(b'{"format":"backupagent.manifest/v9","name":"x","kind":"Full"}', "k")


@given(st.binary(max_size=100))
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedContent):
        decode_manifest(data, "k")


def test_a_report_shows_all_fields_also_the_unknown_ones() -> None:
    fields = manifest_fields(Manifest(format=FORMAT, name="x", kind="Full"))
    assert set(fields) == set(Manifest.__struct_fields__)
    assert fields["hash_kv"] is None
    assert fields["leases"] == {}
    assert manifest_fields(FULL)["source"] == {"size": 3412, "etag": '"1"'}


@pytest.mark.parametrize(
    "leases",
    ['{"x":1}', '{"":1}', '{"0x1":1}', '{"1":0}', '{"1":-5}', '{"1":9000000001}', '{"99999999999999999999":1}'],
)
def test_leases_that_etcd_cannot_have_granted_are_refused(leases: str) -> None:
    data = f'{{"format":"{FORMAT}","name":"n","kind":"Incr","leases":{leases}}}'.encode()
    with pytest.raises(MalformedContent, match="a lease that etcd cannot have granted"):
        decode_manifest(data, "manifests/n.json")
