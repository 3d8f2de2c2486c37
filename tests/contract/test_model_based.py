"""Random sequences of calls against every store and a dict; hypothesis shrinks what differs."""

import contextlib
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from stores import PARAMS, STORES

from backupagent.errors import ObjectExists, ObjectNotFound
from backupagent.stores.base import ObjectStore, PartTag, Upload

# No key lies below another: a file system cannot hold that. The order of "a-b" and "a/b" is a classic mistake.
KEYS = st.sampled_from(["a/b", "a-b", "a/c/d", "a0", "v2/x", "é"])
CONTENT = st.binary(max_size=40)
PART_SIZE = 4
EXAMPLES = {"local": 60, "minio": 8, "minio-versions": 8, "azurite": 8, "fake-gcs": 8, "fake-gcs-sessions": 8}


class StoreMachine(RuleBasedStateMachine):
    uploads = Bundle("uploads")

    def __init__(self, open_store: Callable[[], AbstractContextManager[ObjectStore]]) -> None:
        super().__init__()
        self._exit = contextlib.ExitStack()
        self.store = self._exit.enter_context(open_store())
        self.objects: dict[str, bytes] = {}
        self.open: dict[str, str] = {}

    def teardown(self) -> None:
        self._exit.close()

    @rule(key=KEYS, data=CONTENT, if_absent=st.booleans())
    def put(self, key: str, data: bytes, *, if_absent: bool) -> None:
        if if_absent and key in self.objects:
            with pytest.raises(ObjectExists):
                self.store.put(key, data, if_absent=True)
        else:
            assert self.store.put(key, data, if_absent=if_absent).size == len(data)
            self.objects[key] = data

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.store.delete(key)
        self.objects.pop(key, None)

    @rule(target=uploads, key=KEYS)
    def begin(self, key: str) -> Upload:
        upload = self.store.begin_upload(key, part_size=max(PART_SIZE, self.store.limits.min_part))
        self.open[upload.id] = key
        return upload

    @rule(upload=consumes(uploads), data=CONTENT, if_absent=st.booleans())
    def complete(self, upload: Upload, data: bytes, *, if_absent: bool) -> None:
        if upload.part_size > PART_SIZE:  # a remote store: parts of 5 MiB would make this slow
            data = data or b"x"
            pieces = [data]
        else:
            pieces = [data[at : at + PART_SIZE] for at in range(0, len(data), PART_SIZE)] or [b""]
        numbered = list(enumerate(pieces, 1))
        order = numbered if upload.in_order else numbered[::-1]
        sent: list[PartTag] = [self.store.upload_part(upload, number, piece) for number, piece in order]
        if if_absent and upload.key in self.objects:
            with pytest.raises(ObjectExists):
                self.store.complete_upload(upload, sorted(sent, key=lambda tag: tag.number), if_absent=True)
            self.store.abort_upload(upload)
        else:
            self.store.complete_upload(upload, self.store.list_parts(upload), if_absent=if_absent)
            self.objects[upload.key] = data
        del self.open[upload.id]

    @rule(upload=consumes(uploads))
    def abort(self, upload: Upload) -> None:
        self.store.abort_upload(upload)
        del self.open[upload.id]

    @rule(key=KEYS, offset=st.integers(0, 40), size=st.integers(0, 40))
    def read(self, key: str, offset: int, size: int) -> None:
        if key not in self.objects:
            with pytest.raises(ObjectNotFound):
                self.store.stat(key)
            return
        data = self.objects[key]
        buffer = bytearray(max(0, min(size, len(data) - offset)))
        self.store.read_into(key, memoryview(buffer), offset=min(offset, len(data)))
        assert bytes(buffer) == data[offset : offset + len(buffer)]

    @invariant()
    def lists_the_same(self) -> None:
        for prefix in ("", "a/", "a", "v2/"):
            listed = [(info.key, info.size) for info in self.store.list_objects(prefix)]
            expected = sorted((key, len(data)) for key, data in self.objects.items() if key.startswith(prefix))
            assert listed == expected
        assert {(found.id, found.key) for found in self.store.list_uploads("")} == set(self.open.items())


@pytest.mark.parametrize("name", PARAMS)
def test_behaves_like_a_dict(name: str, request: pytest.FixtureRequest) -> None:
    counted = itertools.count()

    def machine() -> StoreMachine:
        next(counted)
        return StoreMachine(lambda: STORES[name](request))

    examples = EXAMPLES.get(name, 100)
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=20))
    assert next(counted) > examples // 2
