"""What every object store can do: bytes by key.

One small module per provider implements ``ObjectStore`` and translates its SDK's errors into
``backupagent.errors`` in one place. Retry, throttling, metering and fault injection are wrappers with the same
interface. All calls are synchronous and thread-safe.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

NO_METADATA: Mapping[str, str] = {}


@dataclass(frozen=True)
class ObjectInfo:
    """An object as the store lists it.

    Attributes:
        key: Its key in the bucket.
        size: Bytes.
        etag: The store's mark of this very content, compared only for equality; empty where there is none.
        modified_s: When it was written, seconds since 1970, UTC.
        metadata: What was given at ``put`` or ``begin_upload``; filled by ``stat`` only.
    """

    key: str
    size: int
    etag: str
    modified_s: float
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Upload:
    """An upload in parts that was begun.

    Attributes:
        key: The object it will become.
        id: The store's name of the upload.
        part_size: Bytes of every part but the last, which may be shorter.
        in_order: Its parts are taken one after the other only, from the first to the last.
        alive_s: Its last sign of life that the store knows, at least when it was begun, seconds since 1970. Told by
            ``list_uploads`` only, None where it is not known. These three are not part of its identity.
        held: Bytes that the store holds of it, where a listing tells.
    """

    key: str
    id: str
    part_size: int
    in_order: bool = field(default=False, compare=False)
    alive_s: float | None = field(default=None, compare=False)
    held: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class PartTag:
    """A part that the store holds.

    Attributes:
        number: From 1.
        size: Bytes.
        etag: The store's mark of the part; given back at ``complete_upload``.
        crc32: CRC-32 (IEEE) of the part as the store computed it, or None where it tells none.
    """

    number: int
    size: int
    etag: str
    crc32: int | None = None


@dataclass(frozen=True)
class StoreLimits:
    """Hard limits of a store.

    Attributes:
        min_part: Smallest allowed part but the last, bytes.
        max_part: Largest allowed part, bytes.
        max_parts: How many parts an upload may have.
    """

    min_part: int = 1
    max_part: int = 5 * 1024**3
    max_parts: int = 10_000


@dataclass(frozen=True)
class StoreFeatures:
    """Optional abilities, as data.

    Attributes:
        metadata: Objects carry the metadata given with them.
        conditional_create: ``if_absent`` is atomic at the store.
        remote: Requests cross a network, so that many at a time pay.
        reads_tell_metadata: ``read_into`` returns an object's metadata.
        lasting_parts: No request removes the parts of an upload that is aborted: the store does it on its own, later.
        leftovers: A writer that is killed leaves something of a ``put``, which ``list_uploads`` gives with
            ``part_size`` 0, so that it can be aborted; never that of a writer that lives.
    """

    metadata: bool = True
    conditional_create: bool = True
    remote: bool = True
    reads_tell_metadata: bool = False
    lasting_parts: bool = False
    leftovers: bool = False


@dataclass(frozen=True)
class StoreFacts:
    """What a store tells about itself; None where it does not, or may not.

    Attributes:
        time_s: Its clock, seconds since 1970.
        versioning: Whether what is deleted or replaced stays as an older version, or for some time.
        retention: How long and why new objects cannot be deleted, in words; empty when they can.
        untold: What it refused to tell, with the reason, in words.
    """

    time_s: float | None = None
    versioning: bool | None = None
    retention: str | None = None
    untold: tuple[str, ...] = ()


class ObjectStore(Protocol):
    """Bytes by key in one bucket.

    Keys are non-empty, relative, ``/``-separated paths of at most 1,024 bytes of UTF-8 without empty, ``.``
    or ``..`` elements and without backslashes; anything else is a ``ConfigError``. Every method may raise the
    subclasses of ``StoreError`` that its description does not exclude.
    """

    @property
    def display(self) -> str:
        """The store as shown to users: its URI without secrets."""
        ...

    @property
    def limits(self) -> StoreLimits:
        """Hard limits of an upload in parts."""
        ...

    @property
    def features(self) -> StoreFeatures:
        """Optional abilities."""
        ...

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects whose key starts with a string, in byte order of the keys.

        Open uploads are never listed. An empty bucket gives nothing; a bucket that does not exist is
        ``ObjectNotFound``.
        """
        ...

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object, with its metadata.

        Raises:
            ObjectNotFound: there is none.
        """
        ...

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        """Read exactly ``len(buffer)`` bytes from ``offset``.

        Args:
            key: The object.
            buffer: Is filled whole. On any error its content is undefined.
            offset: First byte, from 0.
            etag: When given, only this very content is read.

        Returns:
            The object's metadata where ``features.reads_tell_metadata``, so that nobody needs to ask for it; else,
            and for an empty buffer, nothing.

        Raises:
            TruncatedObject: the object or the answer ends too early.
            ObjectChanged: the object has another etag now.
            ObjectNotFound: there is no such object.
        """
        ...

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = False, metadata: Mapping[str, str] = NO_METADATA
    ) -> ObjectInfo:
        """Write a whole object, atomically: readers see the old one, or none, until it is complete.

        Args:
            key: The object; it is replaced when it exists and ``if_absent`` is false.
            data: Its content; not kept after the call.
            if_absent: Refuse to replace.
            metadata: Lower case ASCII letters to printable ASCII; ignored where the store has none.

        Raises:
            ObjectExists: there is one, and ``if_absent`` was asked for.
        """
        ...

    def begin_upload(self, key: str, *, part_size: int, metadata: Mapping[str, str] = NO_METADATA) -> Upload:
        """Begin an object that arrives in parts; nothing is visible before ``complete_upload``.

        Args:
            key: The object.
            part_size: Bytes of every part but the last one, within ``limits``.
            metadata: As for ``put``.
        """
        ...

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        """Write one part; any order, any number at once. The same number again replaces it.

        Of an upload ``in_order`` the parts come in order, one at a time, and none can be replaced; one that the store
        has already may be given again, and is not sent again.

        Args:
            upload: From ``begin_upload``, or made anew from its remembered fields; then ``list_parts`` comes first.
            number: From 1.
            data: ``upload.part_size`` bytes, fewer for the last part; not kept after the call. The store
                checks a CRC-32 of it where it can.

        Raises:
            ObjectNotFound: the upload was completed or aborted.
        """
        ...

    def list_parts(self, upload: Upload) -> Sequence[PartTag]:
        """List the parts that the store holds, by number.

        Raises:
            ObjectNotFound: the upload was completed or aborted.
        """
        ...

    def complete_upload(self, upload: Upload, parts: Sequence[PartTag], *, if_absent: bool = False) -> ObjectInfo:
        """Make the object visible, whole, at once.

        Args:
            upload: The upload.
            parts: All parts, numbered from 1 without a hole, at least one.
            if_absent: Refuse to replace an object.

        Raises:
            ObjectNotFound: the upload was completed or aborted.
            ObjectExists: there is one, and ``if_absent`` was asked for.
        """
        ...

    def abort_upload(self, upload: Upload) -> None:
        """Throw an upload and its parts away; one that is gone already is fine."""
        ...

    def list_uploads(self, prefix: str) -> Sequence[Upload]:
        """List open uploads whose key starts with a string; ``part_size`` is 0 where the store does not tell it."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is fine."""
        ...

    def close(self) -> None:
        """Give connections back; the store is not used afterwards."""
        ...


def facts_of(store: ObjectStore) -> StoreFacts:
    """Ask a store about itself: its method ``facts``, which only those have that know something.

    Raises:
        StoreError: it cannot be reached, or refuses to tell anything.
    """
    tell: Callable[[], StoreFacts] | None = getattr(store, "facts", None)
    return StoreFacts() if tell is None else tell()
