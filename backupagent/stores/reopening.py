"""A store that is opened anew when its credentials are no longer the right ones.

Rotated credentials take effect without a restart, also in the middle of a copy: the files are looked at now and then,
and whoever is denied access tries once more with what can be read then.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from backupagent.clock import Clock
from backupagent.errors import AccessDenied, BackupAgentError
from backupagent.stores.base import (
    NO_METADATA,
    Buffer,
    CopySource,
    ObjectInfo,
    ObjectStore,
    PartTag,
    StoreFacts,
    StoreFeatures,
    StoreLimits,
    Upload,
    facts_of,
)

T = TypeVar("T")

Fingerprint: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Name, time of modification, size and inode of the files; equal as long as nobody has replaced or written one."""

LOOK_EVERY_S = 5.0
"""How often the files are looked at, while the store is in use."""

AGAIN_AFTER_S = 60.0
"""A store that was opened after a denial and is denied again is not opened a third time before that, unless its
files have changed: a right that is simply not given costs one opening, not one for each request."""

_log = logging.getLogger(__name__)


@dataclass
class _Opened:
    """A store and what its credentials were read from.

    Attributes:
        store: The provider's.
        files: What the files looked like before they were read.
        users: Calls that go on.
        retired: Another one has taken its place; it is closed when its last call has ended.
    """

    store: ObjectStore
    files: Fingerprint
    users: int = 0
    retired: bool = False


class ReopeningStore:
    """A store that is opened anew when its credentials change or are refused. Thread-safe.

    When calls are denied, the store is opened once for all of them, and each is made once more. A call that was
    denied has not been done, so that making it again is always right.

    Args:
        opener: Opens the provider's store, with credentials as they are at that moment; makes no request.
        credentials: The file or directory they are read from; None where there is none, such as for the SDK's own
            chain: then only a denial lets it be opened anew.
        clock: Measures how long ago the files were looked at.

    Raises:
        BackupAgentError: what the opener raises.
    """

    def __init__(self, opener: Callable[[], ObjectStore], *, credentials: Path | None, clock: Clock) -> None:
        self._opener = opener
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._next_look_s = clock.monotonic_s() + LOOK_EVERY_S
        self._denied_until_s: float | None = None
        self._useless: Fingerprint | None = None
        files = self._look()
        self._current = _Opened(opener(), files)

    @property
    def display(self) -> str:
        """The store as shown to users."""
        return self._current.store.display

    @property
    def limits(self) -> StoreLimits:
        """Hard limits of an upload in parts."""
        return self._current.store.limits

    @property
    def features(self) -> StoreFeatures:
        """Optional abilities."""
        return self._current.store.features

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects; after a denial the listing begins anew and leaves out what was given already."""
        last = ""
        while True:
            self._follow_files()
            with self._using() as opened:
                try:
                    for info in opened.store.list_objects(prefix):
                        if info.key > last:  # code points of Unicode are in the same order as their bytes in UTF-8
                            last = info.key
                            yield info
                except AccessDenied as error:
                    denial = error
                else:
                    return
            if not self._replaced(opened):
                raise denial

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object."""
        return self._call(lambda store: store.stat(key))

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        """Read exactly ``len(buffer)`` bytes from ``offset``."""
        return self._call(lambda store: store.read_into(key, buffer, offset=offset, etag=etag))

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = False, metadata: Mapping[str, str] = NO_METADATA
    ) -> ObjectInfo:
        """Write a whole object."""
        return self._call(lambda store: store.put(key, data, if_absent=if_absent, metadata=metadata))

    def begin_upload(
        self, key: str, *, part_size: int, metadata: Mapping[str, str] = NO_METADATA, copied: bool = False
    ) -> Upload:
        """Begin an object that arrives in parts."""
        return self._call(lambda store: store.begin_upload(key, part_size=part_size, metadata=metadata, copied=copied))

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        """Write one part."""
        return self._call(lambda store: store.upload_part(upload, number, data))

    def list_parts(self, upload: Upload) -> Sequence[PartTag]:
        """List the parts that the store holds."""
        return self._call(lambda store: store.list_parts(upload))

    def complete_upload(self, upload: Upload, parts: Sequence[PartTag], *, if_absent: bool = False) -> ObjectInfo:
        """Make the object visible."""
        return self._call(lambda store: store.complete_upload(upload, parts, if_absent=if_absent))

    def abort_upload(self, upload: Upload) -> None:
        """Throw an upload and its parts away."""
        self._call(lambda store: store.abort_upload(upload))

    def list_uploads(self, prefix: str) -> Sequence[Upload]:
        """List open uploads."""
        return self._call(lambda store: store.list_uploads(prefix))

    def copy_source(self, key: str, *, etag: str = "") -> CopySource:
        """Describe an object for a store that is to copy it."""
        return self._call(lambda store: store.copy_source(key, etag=etag))

    def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
        """Copy an object whole."""
        return self._call(lambda store: store.copy_object(source, key))

    def copy_part(self, upload: Upload, number: int, source: CopySource, *, offset: int, size: int) -> PartTag:
        """Copy a range of an object as one part."""
        return self._call(lambda store: store.copy_part(upload, number, source, offset=offset, size=size))

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._call(lambda store: store.delete(key))

    def facts(self) -> StoreFacts:
        """Ask the store about itself."""
        return self._call(facts_of)

    def close(self) -> None:
        """Close the store when its last call has ended."""
        self._retire(self._current)

    def _call(self, call: Callable[[ObjectStore], T]) -> T:
        """Make a call, and after a denial once more with a store that was opened since."""
        while True:
            self._follow_files()
            with self._using() as opened:
                try:
                    return call(opened.store)
                except AccessDenied as error:
                    denial = error
            if not self._replaced(opened):
                raise denial

    @contextlib.contextmanager
    def _using(self) -> Iterator[_Opened]:
        with self._lock:
            opened = self._current
            opened.users += 1
        try:
            yield opened
        finally:
            with self._lock:
                opened.users -= 1
                last = opened.retired and not opened.users
            if last:
                opened.store.close()

    def _retire(self, opened: _Opened) -> None:
        with self._lock:
            unused = not opened.retired and not opened.users
            opened.retired = True
        if unused:
            opened.store.close()

    def _follow_files(self) -> None:
        """Open a new store when the files have changed; the others go on with the old one meanwhile."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            if self._credentials is None or now_s < self._next_look_s:
                return
            self._next_look_s = now_s + LOOK_EVERY_S
        if self._opening.acquire(blocking=False):
            try:
                files = self._look()
                if files not in {self._current.files, self._useless} and self._open(files):
                    _log.info("the credentials of %s have changed and were read again", self.display)
            finally:
                self._opening.release()

    def _replaced(self, denied: _Opened) -> bool:
        """Whether there is another store than the one that was denied access; opens one where that may help."""
        with self._opening:
            if self._current is not denied:
                return True
            now_s = self._clock.monotonic_s()
            files = self._look()
            if files == denied.files and self._denied_until_s is not None and now_s < self._denied_until_s:
                return False
            self._denied_until_s = now_s + AGAIN_AFTER_S
            if not self._open(files):
                return False
            _log.warning("%s denied access: its credentials were read again", self.display)
            return True

    def _open(self, files: Fingerprint) -> bool:
        """Open a store in place of the current one; false when it cannot be, and the current one stays."""
        try:
            opened = _Opened(self._opener(), files)
        except BackupAgentError as error:
            self._useless = files
            _log.warning("the credentials of %s cannot be read again, and stay as they were: %s", self.display, error)
            return False
        with self._lock:
            old, self._current = self._current, opened
        self._retire(old)
        return True

    def _look(self) -> Fingerprint:
        return () if self._credentials is None else fingerprint(self._credentials)


def fingerprint(path: Path) -> Fingerprint:
    """Return what changes when a file, or any file in a directory, is replaced or written; () when there is nothing.

    A mounted Secret of Kubernetes is switched by one link, ``..data``: what its files lead to changes at once.
    """
    try:
        paths = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [(entry.name, entry.stat()) for entry in paths]
    except OSError:  # it is being replaced right now
        return ()
    return tuple((name, status.st_mtime_ns, status.st_size, status.st_ino) for name, status in found)
