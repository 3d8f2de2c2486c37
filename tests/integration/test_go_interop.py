"""Go, in which the peer is written, reads what we write and writes what we read."""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backupagent.codecs import CODECS
from backupagent.errors import MalformedContent
from backupagent.testing.lzw_writer import compress_lzw
from backupagent.units import KiB, MiB

SEED = 13
TIMEOUT_S = 60


def contents() -> dict[str, bytes]:
    rng = random.Random(SEED)
    return {
        "empty": b"",
        "one-byte": b"x",
        "text": b"".join(b'{"name":"app-%06d"}' % rng.randrange(10**6) for _ in range(160 * KiB)),
        "random": rng.randbytes(3 * MiB + 1),
        "zeros": bytes(2 * MiB),
    }


CONTENTS = contents()


class Go:
    """Go's codecs as a command."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary = binary
        self._file = folder / "input"

    def run(self, codec: str, data: bytes, *flags: str) -> subprocess.CompletedProcess[bytes]:
        self._file.write_bytes(data)
        command = [self._binary, self._file, codec, *flags]
        return subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT_S)

    def decode(self, codec: str, stream: bytes) -> bytes:
        ran = self.run(codec, stream)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def encode(self, codec: str, content: bytes) -> bytes:
        ran = self.run(codec, content, "-c")
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture
def go(server_binary: Callable[[str], Path], tmp_path: Path) -> Go:
    return Go(server_binary("gointerop"), tmp_path)


def encoded(codec: str, content: bytes, threads: int) -> bytes:
    make = CODECS[codec].encoder
    assert make is not None
    encoder = make(threads)
    stream = b"".join([*map(bytes, encoder.feed(content)), *map(bytes, encoder.finish())])
    encoder.close()
    return stream


def decoded(codec: str, stream: bytes) -> bytes:
    decoder = CODECS[codec].decoder("object")
    content = b"".join(map(bytes, decoder.feed(stream)))
    decoder.finish()
    return content


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(("codec", "threads"), [("gzip", 1), ("gzip", 3), ("zlib", 1), ("none", 1)])
def test_go_reads_what_we_write(go: Go, codec: str, threads: int, content: str) -> None:
    assert go.decode(codec, encoded(codec, CONTENTS[content], threads)) == CONTENTS[content]


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("codec", ["gzip", "zlib", "lzw", "none"])
def test_we_read_what_go_writes(go: Go, codec: str, content: str) -> None:
    assert decoded(codec, go.encode(codec, CONTENTS[content])) == CONTENTS[content]


@pytest.mark.parametrize("content", ["empty", "one-byte", "zeros"])
def test_the_lzw_of_the_tests_is_that_of_go(go: Go, content: str) -> None:
    assert compress_lzw(CONTENTS[content]) == go.encode("lzw", CONTENTS[content])


def test_go_too_refuses_padding_after_gzip(go: Go) -> None:
    stream = encoded("gzip", b"content", 1) + bytes(512)
    assert b"gzip: invalid header" in go.run("gzip", stream).stderr
    with pytest.raises(MalformedContent):
        decoded("gzip", stream)
