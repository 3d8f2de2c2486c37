"""What callers may give to a store, checked once for all providers: keys, metadata, parts.

A key that one provider takes and another does not would make a copy between them fail in the middle, so every
store refuses the same keys before it does anything.
"""

import re
from collections.abc import Mapping, Sequence

from backupagent.errors import ConfigError, StoreError
from backupagent.stores.base import PartTag, StoreLimits, Upload

MAX_KEY_SIZE = 1024
"""Bytes of UTF-8. Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html"""

MAX_METADATA_SIZE = 2048
"""Bytes of all names and values. Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html"""

EXCLUDED = "x-etcd-snapshot-exclude"
"""Tag or metadata of an object that is not to be listed, when its value is ``true``: so an operator takes a bad
snapshot out of an immutable bucket. Source: etcd-backup-restore, docs/usage/enabling_immutable_snapshots.md."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
"""Azure takes a backslash for a slash. Source: observed with Azurite 3.37.0, which says that the service does so."""

_METADATA_NAME = re.compile(r"[a-z]+")
_METADATA_VALUE = re.compile(r"[\x20-\x7e]*")


def fault_of_key(key: str) -> str:
    """Say what is wrong with a key, or return an empty string."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if not key:
        return "it is empty"
    if size > MAX_KEY_SIZE:
        return f"it is longer than {MAX_KEY_SIZE} bytes"
    if _FORBIDDEN.search(key):
        return "it holds a control character or a backslash"
    if any(element in {"", ".", ".."} for element in key.split("/")):
        return "it has an empty, '.' or '..' element"
    return ""


def may_begin_key(prefix: str) -> bool:
    """Whether any key starts with that; some stores answer a listing of other prefixes with an error."""
    return not fault_of_key(prefix) or not fault_of_key(f"{prefix}x")


def check_key(key: str) -> None:
    """Refuse what is not a key; see ``ObjectStore``.

    Raises:
        ConfigError: the key is empty, longer than 1,024 bytes of UTF-8, not encodable, holds a control
            character or a backslash, or has an empty, ``.`` or ``..`` element between slashes.
    """
    fault = fault_of_key(key)
    if fault:
        raise ConfigError(f"{key!r} is not the key of an object: {fault}")


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuse metadata that some provider would change or reject.

    Raises:
        ConfigError: a name is not of lower case ASCII letters, a value not of printable ASCII or with blanks at
            its ends (HTTP strips them), or the whole is larger than 2 KiB.
    """
    for name, value in metadata.items():
        if not _METADATA_NAME.fullmatch(name):
            raise ConfigError(f"metadata name {name!r} is not of lower case ASCII letters")
        if not _METADATA_VALUE.fullmatch(value) or value != value.strip():
            raise ConfigError(f"the value of metadata {name!r} is not of printable ASCII without blanks at its ends")
    if sum(len(name) + len(value) for name, value in metadata.items()) > MAX_METADATA_SIZE:
        raise ConfigError(f"metadata is larger than {MAX_METADATA_SIZE} bytes")


def check_part_size(part_size: int, limits: StoreLimits) -> None:
    """Refuse to begin an upload that could not be completed.

    Raises:
        ConfigError: the size is outside the store's limits.
    """
    if not limits.min_part <= part_size <= limits.max_part:
        raise ConfigError(
            f"parts of {part_size} bytes are outside the limits of the store, {limits.min_part} to {limits.max_part}"
        )


def check_part(upload: Upload, number: int, size: int, limits: StoreLimits) -> None:
    """Refuse a part that cannot belong to its upload.

    Raises:
        StoreError: the number is outside 1 to ``max_parts``, or the part is larger than the upload's parts.
    """
    if not 1 <= number <= limits.max_parts:
        raise StoreError(f"part {number} is outside 1 to {limits.max_parts}", op="upload part", key=upload.key)
    if size > upload.part_size:
        raise StoreError(
            f"part {number} has {size} bytes, more than the {upload.part_size} of the upload",
            op="upload part",
            key=upload.key,
        )


def check_parts(upload: Upload, parts: Sequence[PartTag]) -> int:
    """Check that parts make one object, without a hole.

    Returns:
        Size of the object, bytes.

    Raises:
        StoreError: there is none, the numbers are not 1, 2, 3 ..., or a part other than the last is short.
    """
    if [part.number for part in parts] != list(range(1, len(parts) + 1)) or not parts:
        raise StoreError("the parts are not numbered from 1 without a hole", op="complete upload", key=upload.key)
    for part in parts[:-1]:
        if part.size != upload.part_size:
            raise StoreError(
                f"part {part.number} has {part.size} bytes instead of {upload.part_size}",
                op="complete upload",
                key=upload.key,
            )
    return sum(part.size for part in parts)
