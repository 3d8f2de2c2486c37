"""Manifest v1: what the agent knows about a snapshot beyond its bytes.

A full has it as one JSON object beside the snapshots; a delta carries the same fields as metadata of its own
object, or as an object too where the store has no metadata. ``docs/formats.md`` describes each field.
"""

import re
from typing import Any

import msgspec

from backupagent.errors import MalformedContent

FORMAT = "backupagent.manifest/v1"

MAX_TTL_S = 9_000_000_000
"""Longest time to live that etcd grants, seconds. Source: etcd v3.5.35, server/lease/lessor.go, MaxLeaseTTL."""

_LEASE_ID = re.compile(r"-?[0-9]{1,19}")

METADATA_KEY = "backupagent"
"""Name of the one metadata entry; letters only, since Azure wants an identifier and proxies drop underscores."""

MAX_METADATA_SIZE = 1536
"""Bytes of a manifest that fit into metadata: S3 allows 2 KiB for all names and values together."""


class SourceObject(msgspec.Struct, frozen=True, omit_defaults=True):
    """The object that a copy was made from.

    Attributes:
        size: Stored size, bytes.
        etag: The source store's mark of the content.
    """

    size: int
    etag: str


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is known about one snapshot; None where it is not.

    Attributes:
        format: ``FORMAT``.
        name: The snapshot's name at its present place.
        kind: ``Full`` or ``Incr``.
        final: Whether it is marked final here.
        final_at_source: Whether it was marked final where it was taken.
        start_revision: First revision of a delta, 0 for a full.
        revision_before: The server's revision before the stream was opened.
        revision_after: The server's revision after the stream had ended.
        revision: The last revision inside, when it is certain.
        created: RFC 3339, UTC.
        bytes: Content without trailer, bytes.
        stored_bytes: Size of the object, bytes.
        sha256: Of the content without its trailer, hex.
        stored_sha256: Of the object, hex.
        hash_kv: The source's HashKV at ``hash_kv_revision``.
        hash_kv_revision: See ``hash_kv``.
        compact_revision: The source's compact revision at that moment; -1 when never compacted.
        etcd_version: The source's version.
        cluster_id: The source's cluster id, hex.
        leases: Granted TTL in seconds by decimal lease id.
        source: The object that this one is a copy of.
        encryption: Reserved, always None.
        signature: Reserved, always None.
    """

    format: str
    name: str
    kind: str
    final: bool = False
    final_at_source: bool = False
    start_revision: int = 0
    revision_before: int | None = None
    revision_after: int | None = None
    revision: int | None = None
    created: str | None = None
    bytes: int | None = None
    stored_bytes: int | None = None
    sha256: str | None = None
    stored_sha256: str | None = None
    hash_kv: int | None = None
    hash_kv_revision: int | None = None
    compact_revision: int | None = None
    etcd_version: str | None = None
    cluster_id: str | None = None
    leases: dict[str, int] = msgspec.field(default_factory=dict)
    source: SourceObject | None = None
    encryption: dict[str, str] | None = None
    signature: str | None = None


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as JSON: fields in a fixed order, unknown ones left out."""
    return _encoder.encode(manifest)


def decode_manifest(data: bytes, key: str) -> Manifest:
    """Read a manifest; fields that this version does not know are ignored.

    Raises:
        MalformedContent: not a manifest of this format.
    """
    try:
        manifest = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:  # it passes the last two on
        message = f"not a manifest: {error}"
        raise MalformedContent(message, key=key) from error
    if not all(_LEASE_ID.fullmatch(lease) and 0 < ttl_s <= MAX_TTL_S for lease, ttl_s in manifest.leases.items()):
        raise MalformedContent("a manifest with a lease that etcd cannot have granted", key=key)
    if manifest.format != FORMAT:
        message = f"manifest format {manifest.format!r}, this program reads {FORMAT!r}"
        raise MalformedContent(message, key=key)
    return manifest


def manifest_fields(manifest: Manifest) -> dict[str, Any]:
    """Return all fields, None included, for a JSON report."""
    fields: dict[str, Any] = dict.fromkeys(manifest.__struct_fields__)
    known: dict[str, Any] = msgspec.to_builtins(manifest)
    return fields | known | {"leases": manifest.leases}
