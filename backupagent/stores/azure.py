"""Azure Blob Storage, through its SDK but for the four hot requests, which go out directly (ADR 0014).

Objects are block blobs. Every call makes one request unless it says otherwise: retrying is the wrapper's business.

An upload in parts stages blocks under the object's own name, where nobody sees them, and commits their list. Azure
remembers the blocks of an unfinished upload for a week, but neither its metadata nor its part size: those are in a
record (``upload_records``). The id of a block says everything else::

    <upload id, 32 hex>.<part, 5 digits>.<time, 16 hex>.<CRC-32, 8 hex>

so that parts that a killed process left can be listed with their CRC, and of a part sent twice the newer one counts.
Content is checked by the service against a CRC-64.
"""

import base64
import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from typing import Any

import requests
from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential, TokenCredential
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobBlock, BlobProperties, ContainerClient
from isal import isal_zlib
from requests.adapters import HTTPAdapter

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import ConfigError, ObjectExists, ObjectNotFound, StoreError, TruncatedObject
from backupagent.stores import azure_copy
from backupagent.stores.azure_direct import DirectRequests
from backupagent.stores.azure_errors import SDK_ERRORS, translate
from backupagent.stores.azure_facts import container_facts
from backupagent.stores.base import (
    NO_METADATA,
    Buffer,
    CopySource,
    ObjectInfo,
    PartTag,
    StoreFacts,
    StoreFeatures,
    StoreLimits,
    Upload,
)
from backupagent.stores.connections import CONNECT_TIMEOUT_S, MAX_IDLE, READ_TIMEOUT_S, http_time_s
from backupagent.stores.keys import EXCLUDED, check_key, check_metadata, check_part, fault_of_key, may_begin_key
from backupagent.stores.receiving import receive
from backupagent.stores.upload_records import UploadRecords

MiB = 1024 * 1024

_METADATA = "x-ms-meta-"

LIMITS = StoreLimits(min_part=1, max_part=4000 * MiB, max_parts=50_000)
"""Source: https://learn.microsoft.com/rest/api/storageservices/understanding-block-blobs--append-blobs--and-page-blobs"""

_NO_TAGS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT})
"""Answers to a listing with tags of somebody without the right to see them, and of accounts that have none."""

CONTENT_TYPE = "application/octet-stream"

_BLOCK = re.compile(
    r"(?P<upload>[0-9a-f]{32})\.(?P<number>[0-9]{5})\.(?P<time>[0-9a-f]{16})\.(?P<crc32>[0-9a-f]{8}|-{8})"
)
_UNKNOWN_CRC = "-" * 8
"""Of a block that the service copied by itself."""


@dataclass(frozen=True)
class AzureSettings:
    """What it takes to reach a container.

    Attributes:
        container: Its name.
        account_url: URL of the account.
        display: The store as shown to users.
        prefix: Of the caller's keys; the records of uploads lie below it.
        credential: Key of the account, or what gives tokens.
    """

    container: str
    account_url: str
    display: str
    prefix: str = ""
    credential: AzureNamedKeyCredential | TokenCredential | None = field(default=None, repr=False)


def open_azure(settings: AzureSettings, clock: Clock = SYSTEM_CLOCK) -> "AzureStore":
    """Open a container; makes no request.

    Raises:
        ConfigError: the SDK refuses the settings.
    """
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=MAX_IDLE))
    transport = RequestsTransport(
        session=session, session_owner=True, connection_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S
    )
    try:
        container = ContainerClient(
            settings.account_url,
            settings.container,
            credential=settings.credential,
            transport=transport,
            connection_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retry_total=0,
            permit_redirects=False,
        )
    except ValueError as error:  # among others: a token would go out without TLS
        raise ConfigError(f"{settings.display} cannot be opened: {error}") from error
    direct = DirectRequests(settings.account_url, settings.container, settings.credential, clock)
    return AzureStore(container, direct, settings, clock)


class AzureStore:
    """A container of Azure Blob Storage. Thread-safe, as the SDK's clients are.

    Args:
        container: The SDK's client; closed with the store.
        direct: Makes the hot requests; closed with the store.
        settings: What it was made from.
        clock: Source of time.
    """

    def __init__(
        self, container: ContainerClient, direct: DirectRequests, settings: AzureSettings, clock: Clock
    ) -> None:
        self._container = container
        self._direct = direct
        self._display = settings.display
        self._copies = azure_copy.copies_of(settings.account_url)
        self._credential = settings.credential
        self._clock = clock
        self._records = UploadRecords(self, settings.prefix)
        self._may_see_tags = True
        self._stamps = threading.Lock()
        self._last_stamp = 0

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
        return StoreFeatures(reads_tell_metadata=True, lasting_parts=True, copies=self._copies)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects, 5,000 for each request; nothing comes before all were listed.

        They are sorted here: the service's order is its own where an account has a hierarchical namespace. What a tag
        excludes is left out; who may not see tags, or has an account without, gets everything.
        """
        if not may_begin_key(prefix):
            return
        with self._translating("list", prefix):
            found = [_info(blob) for blob in self._blobs(prefix) if (blob.tags or {}).get(EXCLUDED) != "true"]
        found.sort(key=lambda info: info.key)
        yield from self._records.visible(prefix, (info for info in found if not fault_of_key(info.key)))

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object."""
        return self._stat(key, "stat")

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        """Read exactly ``len(buffer)`` bytes from ``offset``."""
        check_key(key)
        if not (etag.isascii() and etag.isprintable()):
            raise StoreError(f"no header can hold the etag {etag!r}", op="read", key=key, store=self._display)
        if not buffer.nbytes:  # no range can ask for nothing
            size = self._stat(key, "read", etag=etag).size
            if offset > size:
                raise TruncatedObject(f"it ends at byte {size}, before {offset} ({self._display})", key=key)
            return NO_METADATA
        headers = {"x-ms-range": f"bytes={offset}-{offset + buffer.nbytes - 1}"} | _matching(etag)
        with self._translating("read", key), self._direct.send("GET", key, headers) as answer:
            receive(answer, buffer.cast("B"), key, offset)
            return _metadata_in(answer.headers)

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = False, metadata: Mapping[str, str] = NO_METADATA
    ) -> ObjectInfo:
        """Write a whole object; throws away what was uploaded in parts under its name and not completed."""
        check_key(key)
        check_metadata(metadata)
        view = memoryview(data).cast("B")
        headers = {"x-ms-blob-type": "BlockBlob", "content-type": CONTENT_TYPE}
        headers |= {f"{_METADATA}{name}": value for name, value in metadata.items()}
        if if_absent:
            headers["if-none-match"] = "*"
        with self._translating("put", key), self._direct.send("PUT", key, headers, body=view) as answer:
            return _described(key, len(view), answer.headers, metadata)

    def begin_upload(
        self,
        key: str,
        *,
        part_size: int,
        metadata: Mapping[str, str] = NO_METADATA,
        copied: bool = False,  # noqa: ARG002 - makes no difference
    ) -> Upload:
        """Begin an object that arrives in parts: writes its record."""
        return self._records.begin(key, part_size=part_size, metadata=metadata)

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        """Stage a block; asks for the record of an upload that this process did not begin, once."""
        view = memoryview(data).cast("B")
        check_part(upload, number, len(view), LIMITS)
        opened = self._records.find(upload, "upload part")
        crc32 = isal_zlib.crc32(view)
        block = f"{upload.id}.{number:05d}.{self._stamp():016x}.{crc32:08x}"
        query = {"blockid": base64.b64encode(block.encode()).decode(), "comp": "block"}
        headers = {"content-type": CONTENT_TYPE}
        with (
            self._translating("upload part", upload.key),
            self._direct.send("PUT", upload.key, headers, query=query, body=view),
        ):
            opened.tags[number] = tag = PartTag(number, len(view), block, crc32)
        return tag

    def list_parts(self, upload: Upload) -> Sequence[PartTag]:
        """List the blocks that the service holds for this upload, those of an attempt to complete it too."""
        opened = self._records.find(upload, "list parts")
        newest: dict[int, tuple[int, PartTag]] = {}
        for block in self._blocks(upload.key, "all"):
            match = _BLOCK.fullmatch(block.id)
            if match is None or match["upload"] != upload.id or block.size > upload.part_size:
                continue
            number, stamp = int(match["number"]), int(match["time"], 16)
            crc32 = None if match["crc32"] == _UNKNOWN_CRC else int(match["crc32"], 16)
            tag = PartTag(number, block.size, block.id, crc32)
            newest[number] = max(newest.get(number, (-1, tag)), (stamp, tag), key=lambda pair: pair[0])
        with self._stamps:
            self._last_stamp = max([self._last_stamp, *(stamp for stamp, _ in newest.values())])
        opened.tags.update({number: tag for number, (_, tag) in newest.items()})
        return [tag for _, (_, tag) in sorted(newest.items())]

    def complete_upload(self, upload: Upload, parts: Sequence[PartTag], *, if_absent: bool = False) -> ObjectInfo:
        """Commit the list of blocks, then remove the record.

        The service forgets all other blocks under this name, those of another upload too.
        """
        opened = self._records.find(upload, "complete upload")
        size = self._records.check(opened, parts)
        blob = self._container.get_blob_client(upload.key)
        conditions: Mapping[str, Any] = {"match_condition": MatchConditions.IfMissing} if if_absent else {}
        try:
            with self._translating("complete upload", upload.key):
                answer = blob.commit_block_list(
                    [BlobBlock(part.etag) for part in parts], metadata=dict(opened.metadata), **conditions
                )
            info = _written(upload.key, size, answer, opened.metadata)
        except ObjectExists:
            if [block.id for block in self._blocks(upload.key, "committed")] != [part.etag for part in parts]:
                raise
            info = self.stat(upload.key)  # by this very upload: the answer of an earlier attempt was lost
        self._records.forget(upload)
        return info

    def abort_upload(self, upload: Upload) -> None:
        """Remove the record. No request removes blocks: the service does it a week after the last one came."""
        self._records.forget(upload)

    def list_uploads(self, prefix: str) -> Sequence[Upload]:
        """List open uploads; one request for each."""
        return self._records.list(prefix) if may_begin_key(prefix) else []

    def copy_source(self, key: str, *, etag: str = "") -> CopySource:
        """Describe an object for a store that is to copy it."""
        return azure_copy.source_of(self._container, self._credential, self._stat(key, "copy", etag=etag), self._clock)

    def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
        """Copy an object whole."""
        check_key(key)
        with self._translating("copy", key):
            return azure_copy.copy_whole(self._container.get_blob_client(key), source)

    def copy_part(self, upload: Upload, number: int, source: CopySource, *, offset: int, size: int) -> PartTag:
        """Copy a range of an object as one block."""
        check_part(upload, number, size, LIMITS)
        opened = self._records.find(upload, "copy part")
        block = f"{upload.id}.{number:05d}.{self._stamp():016x}.{_UNKNOWN_CRC}"
        with self._translating("copy part", upload.key):
            blob = self._container.get_blob_client(upload.key)
            azure_copy.copy_block(blob, block, source, offset=offset, size=size)
        opened.tags[number] = tag = PartTag(number, size, block)
        return tag

    def delete(self, key: str) -> None:
        """Remove an object."""
        check_key(key)
        with contextlib.suppress(ObjectNotFound), self._translating("delete", key):
            self._container.delete_blob(key)

    def facts(self) -> StoreFacts:
        """Ask the service about the container: one request."""
        told: list[StoreFacts] = []

        def read(answer: Any) -> None:  # noqa: ANN401 - the SDK's
            told.append(container_facts(answer.http_response.headers))

        with self._translating("ask for the container", ""):
            self._container.get_container_properties(raw_response_hook=read)
        return told[-1]

    def close(self) -> None:
        """Close the connections."""
        self._direct.close()
        self._container.close()

    def _stat(self, key: str, op: str, *, etag: str = "") -> ObjectInfo:
        check_key(key)
        with self._translating(op, key), self._direct.send("HEAD", key, _matching(etag)) as answer:
            size = answer.headers.get("content-length", "")
            if not (size.isascii() and size.isdigit()):
                raise StoreError(f"the answer says {size!r} for a size", op=op, key=key, store=self._display)
            return _described(key, int(size), answer.headers, _metadata_in(answer.headers))

    def _blobs(self, prefix: str) -> list[BlobProperties]:
        if self._may_see_tags:
            try:
                return list(self._container.list_blobs(name_starts_with=prefix, include=["tags"]))
            except HttpResponseError as error:
                if error.status_code not in _NO_TAGS:
                    raise
        found = list(self._container.list_blobs(name_starts_with=prefix))
        self._may_see_tags = False  # it was the tags
        return found

    def _blocks(self, key: str, kind: str) -> list[BlobBlock]:
        """List blocks under a name; there need be no object yet."""
        with contextlib.suppress(ObjectNotFound), self._translating("list parts", key):
            committed, uncommitted = self._container.get_blob_client(key).get_block_list(kind)
            return [*committed, *uncommitted]
        return []

    def _stamp(self) -> int:
        """Return the time, later than that of every block that was made or listed here."""
        now_ns = int(self._clock.now().timestamp() * 1e9)
        with self._stamps:
            self._last_stamp = max(now_ns, self._last_stamp + 1)
            return self._last_stamp

    @contextlib.contextmanager
    def _translating(self, op: str, key: str) -> Iterator[None]:
        try:
            yield
        except SDK_ERRORS as error:
            raise translate(error, op, key, self._display) from error


def _matching(etag: str) -> dict[str, str]:
    return {"if-match": f'"{etag}"'} if etag else {}


def _metadata_in(headers: Message) -> Mapping[str, str]:
    names = ((name.lower(), value) for name, value in headers.items())
    return {name.removeprefix(_METADATA): value for name, value in names if name.startswith(_METADATA)}


def _described(key: str, size: int, headers: Message, metadata: Mapping[str, str]) -> ObjectInfo:
    etag, modified_s = headers.get("etag", "").strip('"'), http_time_s(headers.get("last-modified"))
    return ObjectInfo(key, size, etag, modified_s, metadata, azure_copy.digests_in(headers))


def _info(blob: BlobProperties) -> ObjectInfo:
    metadata = {name.lower(): value for name, value in (blob.metadata or {}).items()}
    return ObjectInfo(blob.name, blob.size, blob.etag.strip('"'), blob.last_modified.timestamp(), metadata)


def _written(key: str, size: int, answer: Mapping[str, object], metadata: Mapping[str, str]) -> ObjectInfo:
    modified = answer["last_modified"]
    return ObjectInfo(key, size, str(answer["etag"]).strip('"'), modified.timestamp(), metadata)  # type: ignore[attr-defined]
