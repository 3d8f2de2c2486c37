"""Google Cloud Storage by its JSON API, with the credentials of google-auth.

Every call makes one request unless it says otherwise: retrying is the wrapper's business.

The JSON API knows no parts, and the sessions that it knows take the bytes in order only. So a part is an object of
its own below the folder of its upload (``upload_records``), and the parts are composed into the object at the end:
32 at most in one request, hence a tree. Each part is composed in exactly the generation that was uploaded, and the
CRC-32C of the whole must be that of the parts. Generations are the etags here: a new one for each write of a key.

Where the bucket keeps what is deleted, the parts would stay, or would be paid for. There they go into one session, in
order (``gcs_sessions``). Who may not ask how the bucket is made gets parts of their own.
"""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from google.auth.credentials import Credentials
from isal import isal_zlib

from backupagent.errors import (
    ChecksumMismatch,
    ObjectChanged,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    TruncatedObject,
)
from backupagent.stores.base import (
    NO_METADATA,
    Buffer,
    Copies,
    CopiesNothing,
    CopySource,
    ObjectInfo,
    PartTag,
    StoreFacts,
    StoreFeatures,
    StoreLimits,
    Upload,
)
from backupagent.stores.gcs_errors import SDK_ERRORS, translate
from backupagent.stores.gcs_facts import BUCKET_FIELDS, bucket_facts
from backupagent.stores.gcs_requests import GcsRequests
from backupagent.stores.gcs_session_uploads import SessionUploads
from backupagent.stores.gcs_values import PART_CRC32, Stored, crc32c_of, read_tag
from backupagent.stores.keys import EXCLUDED, check_key, check_metadata, check_part, fault_of_key, may_begin_key
from backupagent.stores.receiving import receive
from backupagent.stores.upload_records import OpenUpload, UploadRecords

MiB = 1024 * 1024

LIMITS = StoreLimits(min_part=1, max_part=5 * 1024 * MiB, max_parts=10_000)
"""Ours: the service has no limits for composed objects but 5 TiB."""

COMPOSE_LIMIT = 32
"""Sources of one compose. Source: https://cloud.google.com/storage/docs/composite-objects"""

SMALLEST_COPY, LARGEST_COPY = 1 * MiB, 5 * 1024 * 1024 * MiB
"""See ``Copies``; the service copies objects of any size, but no ranges of them."""

DELETERS = 8
"""Threads that remove the parts of one upload."""

_PART = re.compile(r"[0-9]{5}")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GcsSettings:
    """What it takes to reach a bucket.

    Attributes:
        bucket: Its name.
        credentials: What gives tokens.
        endpoint: URL of the service; empty for Google's.
        prefix: Of the caller's keys; parts and records of uploads lie below it.
    """

    bucket: str
    credentials: Credentials = field(repr=False)
    endpoint: str = ""
    prefix: str = ""


def open_gcs(settings: GcsSettings) -> "GcsStore":
    """Open a bucket; makes no request."""
    endpoint = f"?endpoint={settings.endpoint}" if settings.endpoint else ""
    service = GcsRequests(settings.bucket, settings.credentials, settings.endpoint)
    return GcsStore(service, f"gs://{settings.bucket}{endpoint}", settings.prefix)


class GcsStore(CopiesNothing):
    """A bucket of Google Cloud Storage. Thread-safe.

    Args:
        service: Makes the requests; closed with the store.
        display: Shown to users, without secrets.
        prefix: Of the caller's keys; parts and records of uploads lie below it.
    """

    def __init__(self, service: GcsRequests, display: str, prefix: str) -> None:
        self._service = service
        self._display = display
        self._records = UploadRecords(self, prefix)
        self._sessions = SessionUploads(service, self._records)

    @property
    def display(self) -> str:
        """The store as shown to users."""
        return self._display

    @property
    def limits(self) -> StoreLimits:
        """Hard limits of an upload in parts."""
        return LIMITS

    @property
    def features(self) -> StoreFeatures:
        """Optional abilities."""
        return StoreFeatures(copies=Copies(self._service.service, SMALLEST_COPY, LARGEST_COPY, part=0))

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects, a page of at most 1,000 at a time; none whose metadata excludes it."""
        if may_begin_key(prefix):
            with self._translating("list", prefix):
                found = self._service.list_objects(prefix)
                shown = (stored for stored in found if stored.metadata.get(EXCLUDED) != "true")
                valid = (stored.info(metadata=False) for stored in shown if not fault_of_key(stored.name))
                yield from self._records.visible(prefix, valid)

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object."""
        return self._stat(key, "stat")

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        """Read exactly ``len(buffer)`` bytes from ``offset``."""
        check_key(key)
        if not buffer.nbytes:  # no range can ask for nothing
            found = self._stat(key, "read")
            self._check_generation(key, etag, found.etag)
            if offset > found.size:
                raise TruncatedObject(f"it ends at byte {found.size}, before {offset} ({self._display})", key=key)
            return NO_METADATA
        with (
            self._translating("read", key),
            self._service.media(key, offset=offset, size=buffer.nbytes, etag=etag) as answer,
        ):
            self._check_generation(key, etag, answer.headers.get("x-goog-generation", etag))
            receive(answer, buffer.cast("B"), key, offset)
        return NO_METADATA  # the JSON interface tells it with the object's description only

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = False, metadata: Mapping[str, str] = NO_METADATA
    ) -> ObjectInfo:
        """Write a whole object."""
        check_key(key)
        check_metadata(metadata)
        view = memoryview(data).cast("B")
        with self._translating("put", key):
            return self._service.insert(key, view, metadata, generation=0 if if_absent else None).info()

    def begin_upload(
        self,
        key: str,
        *,
        part_size: int,
        metadata: Mapping[str, str] = NO_METADATA,
        copied: bool = False,  # noqa: ARG002 - makes no difference
    ) -> Upload:
        """Begin an object that arrives in parts: writes its record; asks once how the bucket is made."""
        with self._translating("begin upload", key):
            if self._sessions.wanted():
                return self._sessions.begin(key, part_size, metadata)
        return self._records.begin(key, part_size=part_size, metadata=metadata)

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        """Write a part; asks for the record of an upload that this process did not begin, once."""
        view = memoryview(data).cast("B")
        check_part(upload, number, len(view), LIMITS)
        opened = self._find_upload(upload, "upload part")
        if opened.upload.in_order:
            with self._translating("upload part", upload.key):
                return self._sessions.write(opened, number, view)
        metadata = {PART_CRC32: f"{isal_zlib.crc32(view):08x}"}
        with self._translating("upload part", upload.key):
            tag = self._service.insert(self._part_name(upload, number), view, metadata).tag(number)
        opened.tags[number] = tag
        return tag

    def list_parts(self, upload: Upload) -> Sequence[PartTag]:
        """List the parts that the store holds."""
        opened = self._find_upload(upload, "list parts")
        if opened.upload.in_order:
            with self._translating("list parts", upload.key):
                return self._sessions.parts(opened)
        folder = self._records.parts_folder(upload)
        with self._translating("list parts", upload.key):
            tags = [
                stored.tag(int(name))
                for stored in self._service.list_objects(folder)
                if _PART.fullmatch(name := stored.name.removeprefix(folder)) and stored.size <= upload.part_size
            ]
        opened.tags.update({tag.number: tag for tag in tags})
        return tags

    def complete_upload(self, upload: Upload, parts: Sequence[PartTag], *, if_absent: bool = False) -> ObjectInfo:
        """Compose the object, then remove the record, then the parts.

        A session's is looked for before it is finished, when there must be none: that is not atomic.

        Raises:
            ChecksumMismatch: the service composed something else; it was removed again.
        """
        opened = self._find_upload(upload, "complete upload")
        if opened.upload.in_order:
            return self._complete_session(opened, parts, if_absent=if_absent)
        if any(part.number not in opened.tags for part in parts):
            self.list_parts(upload)
        size = self._records.check(opened, parts)
        with self._translating("complete upload", upload.key):
            whole = self._compose(opened, parts, if_absent=if_absent)
            self._check_whole(whole, size, crc32c_of(parts))
        self._records.forget(upload)
        self._remove_parts(upload)
        return whole.info()

    def abort_upload(self, upload: Upload) -> None:
        """Remove the parts, or cancel the session; then remove the record."""
        try:
            opened = self._find_upload(upload, "abort upload")
        except ObjectNotFound:
            opened = None
        if opened is None or not opened.upload.in_order:
            self._remove_parts(upload)
        else:
            with self._translating("abort upload", upload.key):
                self._sessions.cancel(opened)
            self._sessions.forget(upload)
        self._records.forget(upload)

    def list_uploads(self, prefix: str) -> Sequence[Upload]:
        """List open uploads; two requests for each that this process does not know.

        The record of a session that has ended is left out where the bucket keeps it: nothing can be done about it.
        """
        found = self._records.list(prefix) if may_begin_key(prefix) else []
        with self._translating("list uploads", prefix):
            return [upload for upload in found if not upload.in_order or self._sessions.is_of_use(upload)]

    def copy_source(self, key: str, *, etag: str = "") -> CopySource:
        """Describe an object for a store that is to copy it."""
        found = self._stat(key, "copy")
        self._check_generation(key, etag, found.etag)
        return CopySource(self._service.bucket, found)

    def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
        """Copy an object whole; more than one request where it goes to another place or storage class."""
        check_key(key)
        with self._translating("copy", key):
            return self._service.rewrite(key, source.container, source.info.key, source.info.etag).info()

    def delete(self, key: str) -> None:
        """Remove an object."""
        check_key(key)
        with contextlib.suppress(ObjectNotFound), self._translating("delete", key):
            self._service.delete(key)

    def facts(self) -> StoreFacts:
        """Ask the service about the bucket: one request, which takes ``storage.buckets.get``."""
        with self._translating("ask for the bucket", ""):
            return bucket_facts(self._service.describe_bucket(BUCKET_FIELDS))

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    def _stat(self, key: str, op: str) -> ObjectInfo:
        check_key(key)
        with self._translating(op, key):
            return self._service.describe(key).info()

    def _find_upload(self, upload: Upload, op: str) -> OpenUpload:
        return self._sessions.opened(upload) or self._records.find(upload, op)

    def _part_name(self, upload: Upload, number: int) -> str:
        return f"{self._records.parts_folder(upload)}{number:05d}"

    def _compose(self, opened: OpenUpload, parts: Sequence[PartTag], *, if_absent: bool) -> Stored:
        """Make the object; where one is there that an attempt before made, its answer being lost, that one counts."""
        upload = opened.upload
        there = self._find(upload.key) if if_absent else None  # asked first: else much would be composed in vain
        if there is not None:
            if opened.attempted and there.crc32c == crc32c_of(parts):
                return there
            raise ObjectExists("there is one already", op="complete upload", key=upload.key, store=self._display)
        sources = [(self._part_name(upload, part.number), read_tag(part)[0]) for part in parts]
        level = 0
        while len(sources) > COMPOSE_LIMIT:
            level += 1
            groups = [sources[at : at + COMPOSE_LIMIT] for at in range(0, len(sources), COMPOSE_LIMIT)]
            names = [f"{self._records.parts_folder(upload)}{level}-{index:05d}" for index in range(len(groups))]
            composed = [self._service.compose(name, group, {}) for name, group in zip(names, groups, strict=True)]
            sources = [(stored.name, stored.generation) for stored in composed]
        opened.attempted = True
        return self._service.compose(upload.key, sources, opened.metadata, generation=0 if if_absent else None)

    def _find(self, key: str) -> Stored | None:
        with contextlib.suppress(ObjectNotFound), self._translating("complete upload", key):
            return self._service.describe(key)
        return None

    def _remove_parts(self, upload: Upload) -> None:
        folder = self._records.parts_folder(upload)
        with self._translating("abort upload", upload.key):
            names = [stored.name for stored in self._service.list_objects(folder)]
        with ThreadPoolExecutor(DELETERS) as pool:
            kept = sum(pool.map(self._is_kept, names))
        if kept:
            _log.warning(
                "%d parts of %s stay in %s until their retention ends; with the permission storage.buckets.get"
                " parts would not become objects there",
                kept, upload.key, self._display,
            )  # fmt: skip

    def _is_kept(self, name: str) -> bool:
        """Remove a part, if the bucket lets go of it."""
        try:
            self.delete(name)
        except ObjectLocked:
            return True
        return False

    def _complete_session(self, opened: OpenUpload, parts: Sequence[PartTag], *, if_absent: bool) -> ObjectInfo:
        upload, size = opened.upload, self._records.check(opened, parts)
        with self._translating("complete upload", upload.key):
            if if_absent and not opened.attempted and self._find(upload.key) is not None:
                raise ObjectExists("there is one already", op="complete upload", key=upload.key, store=self._display)
            opened.attempted = True
            whole, crc = self._sessions.complete(opened, size, len(parts))
            self._check_whole(whole, size, whole.crc32c if crc is None else crc)
        self._sessions.forget(upload)
        self._records.forget(upload)
        return whole.info()

    def _check_whole(self, whole: Stored, size: int, crc: int) -> None:
        if (whole.size, whole.crc32c) != (size, crc):
            self._service.delete(whole.name, generation=whole.generation)
            raise ChecksumMismatch("what was made of its parts has another size or CRC-32C", key=whole.name)

    def _check_generation(self, key: str, wanted: str, found: str) -> None:
        if wanted and wanted != found:
            raise ObjectChanged("it was replaced", op="read", key=key, store=self._display)

    @contextlib.contextmanager
    def _translating(self, op: str, key: str) -> Iterator[None]:
        try:
            yield
        except SDK_ERRORS as error:
            raise translate(error, op, key, self._display) from error
