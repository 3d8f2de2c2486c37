"""How an object is cut into parts: arithmetic only."""

from dataclasses import dataclass

from backupagent.errors import ConfigError
from backupagent.stores.base import StoreLimits


@dataclass(frozen=True)
class Part:
    """A piece of an object.

    Attributes:
        number: From 1.
        offset: Of its first byte, from 0.
        size: Bytes, at least 1 unless the object is empty.
    """

    number: int
    offset: int
    size: int


def fitting_part_size(size: int, *, part_size: int, limits: StoreLimits) -> int:
    """Raise or lower a wanted part size until the store accepts it.

    Args:
        size: Object size, bytes; 0 when it is not known.
        part_size: Wanted size of a part, bytes.
        limits: The target's hard limits.

    Returns:
        Bytes of every part but the last.

    Raises:
        ConfigError: the object is larger than the store takes.
    """
    if size > limits.max_part * limits.max_parts:
        message = f"an object of {size} bytes does not fit into {limits.max_parts} parts of {limits.max_part} bytes"
        raise ConfigError(message, hint="the store cannot hold it; choose another store")
    return min(max(part_size, limits.min_part, -(-size // limits.max_parts)), limits.max_part)


def plan_parts(size: int, part_size: int) -> tuple[Part, ...]:
    """Cut an object into parts.

    Args:
        size: Object size, bytes.
        part_size: Bytes of every part but the last, at least 1.

    Returns:
        Parts in order which tile ``[0, size)`` without gap or overlap; one empty part for an empty object.
    """
    if size == 0:
        return (Part(1, 0, 0),)
    return tuple(
        Part(number, offset, min(part_size, size - offset))
        for number, offset in enumerate(range(0, size, part_size), start=1)
    )
