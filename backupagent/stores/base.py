"""What every object store can do: bytes by key.

One small module per provider implements ``ObjectStore`` and translates its SDK's errors into
``backupagent.errors`` in one place. Retry, throttling, metering and fault injection are wrappers with the same
interface. All calls are synchronous and thread-safe.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from backupagent.errors import StoreError

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
        digests: What the store tells of the content, by the name of the sum; filled where ``Copies`` says so. Two
            objects are only compared by names that both have.
    """

    key: str
    size: int
    etag: str
    modified_s: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Upload:
    """An upload in parts that was begun.

    Attributes:
        key: The object it will become.
        id: The store's name of the upload.
        part_size: Bytes of every part but the last, which may be shorter.
        in_order: Its parts are taken one after the other only, from the first to the last.
        alive_s: Its last sign of life that the store knows, at least when it was begun, seconds since 1970. Told by
            ``list_uploads`` only, None where it is not known. These four are not part of its identity.
        held: Bytes that the store holds of it, where a listing tells.
        copied: Whether its parts come by ``copy_part``, none by ``upload_part``.
    """

    key: str
    id: str
    part_size: int
    in_order: bool = field(default=False, compare=False)
    alive_s: float | None = field(default=None, compare=False)
    held: int | None = field(default=None, compare=False)
    copied: bool = field(default=False, compare=False)


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
class Copies:
    """How a store copies objects of its service by itself, so that their bytes do not pass through us.

    ``copy_source``, ``copy_object`` and ``complete_upload`` then tell the digests of what they describe, as far as
    the store has any.

    Attributes:
        service: Names the service; two stores with the same one may copy from each other, if they are allowed to.
        smallest: Bytes below which reading and writing costs no more than copying.
        whole: Largest object that ``copy_object`` takes, or is worth one request, bytes.
        part: Bytes of a part of a larger object; 0 where ranges cannot be copied.
    """

    service: str
    smallest: int
    whole: int
    part: int


@dataclass(frozen=True)
class CopySource:
    """An object as another store of the same service is told to copy it.

    Attributes:
        container: Its bucket.
        info: The object; its ``etag`` is the content that is to be copied, no other.
        part_size: Bytes of the parts that it was written in: a copy in the same parts has a digest that can be
            compared. 0 where there are none, or they are not known.
        url: Gives a URL at which the service may read it for a short time; None where the names do.
    """

    container: str
    info: ObjectInfo
    part_size: int = 0
    url: Callable[[], str] | None = field(default=None, repr=False, compare=False)


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
        copies: How the store copies by itself; None when it cannot.
    """

    metadata: bool = True
    conditional_create: bool = True
    remote: bool = True
    reads_tell_metadata: bool = False
    lasting_parts: bool = False
    leftovers: bool = False
    copies: Copies | None = None


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

    def begin_upload(
        self, key: str, *, part_size: int, metadata: Mapping[str, str] = NO_METADATA, copied: bool = False
    ) -> Upload:
        """Begin an object that arrives in parts; nothing is visible before ``complete_upload``.

        Args:
            key: The object.
            part_size: Bytes of every part but the last one, within ``limits``.
            metadata: As for ``put``.
            copied: Its parts come by ``copy_part``.
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

    def copy_source(self, key: str, *, etag: str = "") -> CopySource:
        """Describe an object for a store that is to copy it.

        Args:
            key: The object.
            etag: When given, only this very content is described.

        Raises:
            ObjectNotFound: there is no such object.
            ObjectChanged: the object has another etag now.
            StoreError: the store does not copy by itself.
        """
        ...

    def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
        """Copy an object of the same service whole; it carries none of the source's metadata.

        Nothing is visible before all of it is there. The answer tells digests, which the caller compares.

        Args:
            source: Of at most ``features.copies.whole`` bytes.
            key: Is replaced when it exists.

        Raises:
            ObjectChanged: the source is another content now; or ObjectNotFound, where the store counts versions.
            StoreError: the service refuses or cannot do it; what is not ``retryable`` is no matter of luck.
        """
        ...

    def copy_part(self, upload: Upload, number: int, source: CopySource, *, offset: int, size: int) -> PartTag:
        """Copy a range of an object of the same service as one part; as ``upload_part`` in all else.

        Args:
            upload: As for ``upload_part``.
            number: From 1.
            source: The object.
            offset: First byte, from 0.
            size: Bytes: ``upload.part_size``, fewer for the last part.

        Raises:
            ObjectChanged: as for ``copy_object``.
            StoreError: as for ``copy_object``.
        """
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


class CopiesNothing:
    """The copies of a store that does not copy by itself."""

    def copy_source(self, key: str, *, etag: str = "") -> CopySource:
        """Refuse."""
        raise StoreError(f"this store copies nothing by itself (etag {etag!r})", op="copy", key=key)

    def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
        """Refuse."""
        raise StoreError(f"this store copies nothing by itself, not {source.info.key}", op="copy", key=key)

    def copy_part(self, upload: Upload, number: int, source: CopySource, *, offset: int, size: int) -> PartTag:
        """Refuse."""
        what = f"part {number} of {size} bytes from {offset} of {source.info.key}"
        raise StoreError(f"this store copies nothing by itself, not {what}", op="copy part", key=upload.key)
