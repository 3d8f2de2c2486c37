from backupagent.codecs.base import MAX_PIECE
from backupagent.codecs.none import PlainDecoder, PlainEncoder


def test_nothing_is_copied() -> None:
    content = bytearray(b"a" * (MAX_PIECE + 10))
    for given in (PlainEncoder(1).feed(content), PlainDecoder("key").feed(content)):
        pieces = list(given)
        assert [len(piece) for piece in pieces] == [MAX_PIECE, 10]
        content[-1] = ord("b")
        assert pieces[1][-1] == ord("b")
        content[-1] = ord("a")
