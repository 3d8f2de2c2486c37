"""What Google Cloud Storage says of an object, and what a part's tag holds of that."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backupagent import crc32c
from backupagent.errors import StoreError
from backupagent.stores.base import ObjectInfo, PartTag

FIELDS = "name,size,generation,timeCreated,crc32c,metadata"
"""All that is asked of an object."""

PART_CRC32 = "crc"
"""Metadata of a part: its CRC-32. The service checked the content that it belongs to by its CRC-32C."""

_CRC32 = re.compile(r"[0-9a-f]{8}")
_TAG = re.compile(r"(?P<generation>[0-9]{1,20})\.(?P<crc32c>[0-9a-f]{8})")


@dataclass(frozen=True)
class Stored:
    """An object as the service describes it.

    Attributes:
        name: Its key.
        size: Bytes.
        generation: Number of this very content.
        crc32c: Of the content.
        created_s: When it was written, seconds since 1970.
        metadata: The user's.
    """

    name: str
    size: int
    generation: int
    crc32c: int
    created_s: float
    metadata: Mapping[str, str]

    def info(self, *, metadata: bool = True) -> ObjectInfo:
        """Return the object as every store describes it, with or without its metadata."""
        shown, digests = self.metadata if metadata else {}, {"crc32c": f"{self.crc32c:08x}"}
        return ObjectInfo(self.name, self.size, str(self.generation), self.created_s, shown, digests)

    def tag(self, number: int) -> PartTag:
        """Describe the object as a part; the etag holds what composing and checking the whole needs."""
        crc32 = self.metadata.get(PART_CRC32, "")
        return PartTag(
            number,
            self.size,
            f"{self.generation}.{self.crc32c:08x}",
            int(crc32, 16) if _CRC32.fullmatch(crc32) else None,
        )


def read_resource(resource: Mapping[str, Any]) -> Stored:
    """Read the JSON of an object.

    Raises:
        StoreError: something is missing in it.
    """
    try:
        return Stored(
            name=str(resource["name"]),
            size=int(resource["size"]),
            generation=int(resource["generation"]),
            crc32c=int.from_bytes(base64.b64decode(resource["crc32c"], validate=True), "big"),
            created_s=datetime.fromisoformat(resource["timeCreated"]).timestamp(),
            metadata={str(name): str(value) for name, value in resource.get("metadata", {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"the answer describes no object: {error}", op="read the answer") from error


def read_tag(part: PartTag) -> tuple[int, int]:
    """Return generation and CRC-32C of a part.

    Raises:
        StoreError: the etag is not one of ``Stored.tag``.
    """
    match = _TAG.fullmatch(part.etag)
    if match is None:
        raise StoreError(f"part {part.number} has an etag of another store: {part.etag!r}", op="complete upload")
    return int(match["generation"]), int(match["crc32c"], 16)


def crc32c_of(parts: Sequence[PartTag]) -> int:
    """Return the CRC-32C of the parts, one behind the other."""
    whole = 0
    for part in parts:
        whole = crc32c.combine(whole, read_tag(part)[1], part.size)
    return whole


def encode_crc32c(crc: int) -> str:
    """Write a CRC-32C as the service does."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()
