"""Compressions of snapshots, as a table; a snapshot's suffix alone decides which one reads it.

Source of names and suffixes: etcd-backup-restore, pkg/compressor/types.go at debd95b; ``zstd`` is ours.
"""

from collections.abc import Mapping

from backupagent.codecs.base import Codec
from backupagent.codecs.deflate import GzipEncoder, ZlibEncoder
from backupagent.codecs.inflate import GzipDecoder, ZlibDecoder
from backupagent.codecs.lzw import LzwDecoder
from backupagent.codecs.none import PlainDecoder, PlainEncoder
from backupagent.codecs.zstd import ZstdDecoder, ZstdEncoder
from backupagent.errors import ConfigError, MalformedContent

_ROWS = (
    Codec(name="none", suffix="", encoder=PlainEncoder, decoder=PlainDecoder),
    Codec(name="gzip", suffix=".gz", encoder=GzipEncoder, decoder=GzipDecoder),
    Codec(name="zlib", suffix=".zlib", encoder=ZlibEncoder, decoder=ZlibDecoder),
    Codec(name="lzw", suffix=".Z", encoder=None, decoder=LzwDecoder, slow=True),
    Codec(name="zstd", suffix=".zst", encoder=ZstdEncoder, decoder=ZstdDecoder, peer_reads=False),
)

CODECS: Mapping[str, Codec] = {codec.name: codec for codec in _ROWS}
"""Every compression by its name."""

_BY_SUFFIX: Mapping[str, Codec] = {codec.suffix: codec for codec in _ROWS}


def codec_named(name: str) -> Codec:
    """Return the compression of that name, e.g. ``gzip``.

    Raises:
        ConfigError: there is none.
    """
    codec = CODECS.get(name)
    if codec is None:
        raise ConfigError(f"unknown compression {name!r}", hint=f"one of {', '.join(CODECS)}")
    return codec


def codec_for_suffix(suffix: str, key: str) -> Codec:
    """Return the compression that reads a snapshot.

    Args:
        suffix: Suffix of its name with the dot, without ``.final``; empty when it is not compressed.
        key: Key of the object, for the message.

    Raises:
        MalformedContent: there is none. Not BadSnapshotName: the name follows the grammar, and an object that is
            certainly a snapshot must count as one that cannot be read, not as a stranger that may be passed over.
    """
    codec = _BY_SUFFIX.get(suffix)
    if codec is None:
        readable = ", ".join(known for known in _BY_SUFFIX if known)
        raise MalformedContent(
            f"unsupported compression suffix {suffix!r}",
            key=key,
            hint=f"this version reads {readable} and no suffix; a newer version may have written the object",
        )
    return codec
