"""What answers of S3 say of an object, in our terms."""

import base64
import re
from collections.abc import Mapping
from email.message import Message

METADATA = "x-amz-meta-"

_ETAG = re.compile(r'"?(?P<md5>[0-9a-f]{32})(?P<parts>-[0-9]{1,5})?"?')
_WITH_MD5 = frozenset({"", "AES256"})
"""Kinds of encryption at the store that leave an etag what it is without: an MD5 of the content, or of its parts'."""


def encode_crc32(crc32: int) -> str:
    """Write a CRC-32 as S3 does."""
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()


def decode_crc32(text: str) -> int | None:
    """Read the CRC-32 of a part; None where the store tells none that can be read."""
    try:
        return int.from_bytes(base64.b64decode(text, validate=True), "big") if text else None
    except ValueError:
        return None


def metadata_in(headers: Message) -> Mapping[str, str]:
    """Return the user's metadata."""
    names = ((name.lower(), value) for name, value in headers.items())
    return {name.removeprefix(METADATA): value for name, value in names if name.startswith(METADATA)}


def part_count(etag: str) -> int:
    """Return in how many parts an object was written; 0 where its etag does not tell."""
    match = _ETAG.fullmatch(etag)
    return int(match["parts"][1:]) if match and match["parts"] else 0


def digests_of(etag: str, encryption: str, *, part_size: int = 0, crc32: str = "") -> Mapping[str, str]:
    """Tell what an answer says of the content of an object.

    Args:
        etag: As S3 gives it: the MD5 of the content, or of the MD5s of its parts and their number.
        encryption: How the object is encrypted, as S3 says it.
        part_size: Bytes of the parts that it was written in; 0 when they are not known, or none.
        crc32: Of the content, as S3 gives it; one that is made of the parts' is left out.

    Source:
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html (ETag) and
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
    """
    digests = {}
    match = _ETAG.fullmatch(etag)
    if match and encryption in _WITH_MD5 and bool(match["parts"]) == bool(part_size):
        digests[f"md5 of parts of {part_size} bytes" if part_size else "md5"] = match["md5"]
    if decode_crc32(crc32) is not None:
        digests["crc32"] = crc32
    return digests
