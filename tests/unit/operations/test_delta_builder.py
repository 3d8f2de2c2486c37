"""Deltas byte for byte: JSON array, then its sha256, then the compression."""

import hashlib

import pytest
from snapshot_fakes import delta_content, put_event, with_trailer

from backupagent.codecs import CODECS
from backupagent.errors import ConfigError
from backupagent.operations.delta_builder import DeltaBuilder


def test_an_array_of_all_runs_and_its_digest() -> None:
    builder = DeltaBuilder(CODECS["none"])
    builder.add([put_event(6), put_event(7, lease=-5)])
    builder.add([put_event(8, lease=9), put_event(9)])
    built = builder.finish()
    content = built.data[:-32]
    assert built.data == with_trailer(content)
    assert content.startswith(delta_content(6)[:-1])
    assert content.endswith(delta_content(9)[1:])
    assert (built.first, built.last, built.events, built.leases) == (6, 9, 4, {-5, 9})
    assert (built.content_size, built.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert built.stored_sha256 == hashlib.sha256(built.data).hexdigest()


@pytest.mark.parametrize("codec", ["gzip", "zlib", "zstd"])
def test_the_object_decompresses_to_the_same_bytes(codec: str) -> None:
    builder = DeltaBuilder(CODECS[codec])
    builder.add([put_event(6), put_event(7)])
    built = builder.finish()
    decoder = CODECS[codec].decoder("key")
    assert b"".join(bytes(piece) for piece in decoder.feed(built.data)) == with_trailer(delta_content(6, 7))
    decoder.finish()


def test_lzw_is_only_read() -> None:
    with pytest.raises(ConfigError, match="lzw can only be read"):
        DeltaBuilder(CODECS["lzw"])
