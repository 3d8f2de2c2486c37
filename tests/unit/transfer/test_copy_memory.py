"""What a copy really holds, and not only what its pool counts."""

import gc

import pytest
from transfer_fakes import Gate, content, copy_item, journal_of, transfer

from backupagent.stores.memory import MemoryStore
from backupagent.transfer import buffers
from backupagent.transfer.copying import copy_objects

PART = 1000


class Counted(bytearray):
    """A buffer that counts how many bytes of its kind live."""

    alive = peak = 0

    def __init__(self, size: int) -> None:
        super().__init__(size)
        Counted.alive += size
        Counted.peak = max(Counted.peak, Counted.alive)

    def __del__(self) -> None:
        Counted.alive -= len(self)


class Source(MemoryStore):
    """Lets the slow part of the first object end when the second object is read."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def read_into(self, key, buffer, *, offset=0, etag=""):
        if key == "1":
            self.gate.open()
        return super().read_into(key, buffer, offset=offset, etag=etag)


class Target(MemoryStore):
    """Holds the second part of an object, and the first one until then: so that both are under way at once."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def upload_part(self, upload, number, data):
        if number == 2:
            self.gate.hold()
        else:
            self.gate.wait_for(1)
        return super().upload_part(upload, number, data)


def test_a_worker_that_takes_the_next_part_holds_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool has one buffer free and needs its memory for one of another size, while the other buffer is in use."""
    monkeypatch.setattr(buffers, "bytearray", Counted, raising=False)
    Counted.alive = Counted.peak = 0
    gate = Gate()
    source, target = Source(gate), Target(gate)
    source.put("0", content(2 * PART))
    source.put("1", content(PART - 1))
    items = [copy_item(source, key) for key in ("0", "1")]
    outcome = copy_objects(source, target, items, journal_of(target), transfer(workers=2, window=0, part_size=PART))
    assert not outcome.failed
    assert [info.size for info in target.list_objects("copy/")] == [2 * PART, PART - 1]
    assert Counted.peak <= 2 * PART
    gc.collect()
    assert Counted.alive == 0
