"""The encoder of gzip: members, threads and memory."""

import gzip
import threading
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future

import pytest

from backupagent.codecs import deflate
from backupagent.codecs.base import Buffer
from backupagent.codecs.deflate import BLOCK, GzipEncoder, ZlibEncoder

GO_HEADER = bytes.fromhex("1f8b08000000000000ff")
"""No name, no time, no extra flags, unknown system: what Go's compress/gzip writes."""


def gzip_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gzip")]


def encoded(encoder: GzipEncoder | ZlibEncoder, parts: Iterable[Buffer]) -> bytes:
    pieces = [bytes(piece) for part in parts for piece in encoder.feed(part)]
    return b"".join(pieces + [bytes(piece) for piece in encoder.finish()])


def members(stream: bytes) -> list[bytes]:
    contents = []
    while stream:
        member = zlib.decompressobj(31)
        contents.append(member.decompress(stream))
        assert member.eof
        stream = member.unused_data
    return contents


@pytest.fixture
def encoder(request: pytest.FixtureRequest) -> Iterable[GzipEncoder]:
    made = GzipEncoder(getattr(request, "param", 2))
    yield made
    made.close()
    assert gzip_threads() == []


@pytest.mark.parametrize("encoder", [1, 3], indirect=True)
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_each_block_becomes_a_member(encoder: GzipEncoder, size: int) -> None:
    content = b"snapshot" * (size // 8) + b"x" * (size % 8)
    stream = encoded(encoder, [content])
    assert stream.startswith(GO_HEADER)
    assert members(stream) == [content[at : at + BLOCK] for at in range(0, max(size, 1), BLOCK)]
    assert gzip.decompress(stream) == content


def test_the_result_does_not_depend_on_threads_or_slices() -> None:
    content = b"0123456789" * 400_000
    one, three = GzipEncoder(1), GzipEncoder(3)
    parts = [content[at : at + 99_999] for at in range(0, len(content), 99_999)]
    assert encoded(one, [content]) == encoded(three, parts)
    three.close()


@pytest.mark.parametrize("encoder", [1], indirect=True)
def test_one_thread_is_the_callers(encoder: GzipEncoder) -> None:
    list(encoder.feed(bytes(3 * BLOCK)))
    assert gzip_threads() == []


@pytest.mark.parametrize("encoder", [3], indirect=True)
def test_a_stream_of_less_than_a_block_starts_no_thread(encoder: GzipEncoder) -> None:
    assert gzip.decompress(encoded(encoder, [b"delta"])) == b"delta"
    assert gzip_threads() == []


def test_members_come_in_order_even_when_a_later_one_is_ready_first(
    encoder: GzipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_is_ready = threading.Event()

    def first_waits_for_second(block: Buffer) -> bytes:
        if block[0] == ord("1"):
            assert second_is_ready.wait(timeout=60)
        if block[0] == ord("2"):
            second_is_ready.set()
        return bytes(block[:1])

    monkeypatch.setattr(deflate, "compress_block", first_waits_for_second)
    assert encoded(encoder, [b"1" * BLOCK + b"2" * BLOCK + b"3" * BLOCK + b"4"]) == b"1234"


def test_the_error_of_a_thread_comes_out_of_the_encoder(encoder: GzipEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_block: Buffer) -> bytes:
        raise MemoryError("no buffer")

    monkeypatch.setattr(deflate, "compress_block", fail)
    with pytest.raises(MemoryError, match="no buffer"):
        encoded(encoder, [bytes(BLOCK)])


class LazyPool:
    """Does a task only when its result is asked for, and counts those that wait."""

    def __init__(self) -> None:
        self.waiting = self.most_waiting = 0

    def submit(self, work: Callable[[bytearray], bytes], block: bytearray) -> "LazyFuture":
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        return LazyFuture(self, lambda: work(block))

    def shutdown(self, *, cancel_futures: bool) -> None:
        assert cancel_futures


class LazyFuture(Future[bytes]):
    def __init__(self, pool: LazyPool, work: Callable[[], bytes]) -> None:
        super().__init__()
        self.pool, self.work = pool, work

    def result(self, timeout: float | None = None) -> bytes:
        self.pool.waiting -= 1
        return self.work()


@pytest.mark.parametrize("encoder", [2, 4], indirect=True)
def test_at_most_two_blocks_more_than_threads_are_held(encoder: GzipEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = LazyPool()
    monkeypatch.setattr(deflate, "ThreadPoolExecutor", lambda *_args, **_names: pool)
    given = 0
    for part in range(20 * 4):
        given += len(list(encoder.feed(bytes((part,)) * (BLOCK // 4))))
        # While the next block is being filled, it is one of them.
        assert pool.waiting + bool(encoder._block) <= encoder._threads + 2
    assert pool.most_waiting == encoder._threads + 2
    assert given + len(list(encoder.finish())) == 20


def test_zlib_is_one_stream() -> None:
    content = b"0123456789" * 400_000
    stream = encoded(ZlibEncoder(3), [content])
    whole = zlib.decompressobj()
    assert whole.decompress(stream) == content
    assert whole.eof
    assert whole.unused_data == b""
