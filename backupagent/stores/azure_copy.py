"""Blobs that Azure copies by itself, from any account of the same cloud, by a URL that is signed for an hour.

The URL is signed with the key of the source's account. A token would need a further request and right (a user
delegation key): a source that is opened with one is not copied this way.

Source:
    https://learn.microsoft.com/rest/api/storageservices/copy-blob-from-url (whole, 256 MiB at most)
    https://learn.microsoft.com/rest/api/storageservices/put-block-from-url (a range)
"""

import base64
from collections.abc import Mapping
from datetime import timedelta
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob import BlobClient, ContainerClient, generate_blob_sas

from backupagent.clock import Clock
from backupagent.errors import AccessDenied, StoreError
from backupagent.stores.base import Copies, CopySource, ObjectInfo

MiB = 1024 * 1024

SMALLEST, WHOLE, PART = 1 * MiB, 256 * MiB, 64 * MiB
"""See ``Copies``."""

URL_LIFE = timedelta(hours=1)
"""How long a signed URL is good; clocks may be apart, and a copy of 256 MiB may take minutes."""

COPIED = {"copied": "true"}
"""Metadata of a copy: without any, the service would copy those of the source."""


def copies_of(account_url: str) -> Copies:
    """Tell how a container of an account is copied into: from every account of its cloud."""
    url = urlsplit(account_url.lower())
    account_in_path = bool(url.path.strip("/"))  # of an emulator
    shared = url.netloc if account_in_path else url.netloc.partition(".")[2]
    return Copies(f"{url.scheme}://{shared}", SMALLEST, WHOLE, PART)


def digests_in(headers: Message) -> Mapping[str, str]:
    """Read the MD5 of a blob; one that was written in blocks has none."""
    try:
        md5 = base64.b64decode(headers.get("content-md5", ""), validate=True)
    except ValueError:
        return {}
    return {"md5": md5.hex()} if md5 else {}


def source_of(container: ContainerClient, credential: object, info: ObjectInfo, clock: Clock) -> CopySource:
    """Describe a blob for the service.

    Args:
        container: Where it lies.
        credential: What the container was opened with.
        info: The blob.
        clock: Source of time.

    Raises:
        AccessDenied: there is no key to sign a URL with.
    """
    if not isinstance(credential, AzureNamedKeyCredential):
        raise AccessDenied(
            "a URL for the service is signed with the key of the account, and there is none",
            op="copy",
            key=info.key,
            hint="give storageKey, or go on: the bytes go through here",
        )

    def url() -> str:
        account, key = credential.named_key
        expiry = clock.now() + URL_LIFE
        name = container.container_name
        signed = generate_blob_sas(account, name, info.key, account_key=key, permission="r", expiry=expiry)
        return f"{container.get_blob_client(info.key).url}?{signed}"

    return CopySource(container.container_name, info, url=url)


def copy_whole(blob: BlobClient, source: CopySource) -> ObjectInfo:
    """Copy a blob in one request, at whose end it is there.

    Raises:
        StoreError: the service only promises to.
    """
    md5 = source.info.digests.get("md5")
    checked = {"x-ms-source-content-md5": base64.b64encode(bytes.fromhex(md5)).decode()} if md5 else {}
    answer: Any = blob.start_copy_from_url(
        _url(source), metadata=dict(COPIED), requires_sync=True, headers=_only_this(source) | checked
    )
    if answer["copy_status"] != "success":
        raise StoreError(f"the copy is {answer['copy_status']}", op="copy", key=source.info.key)
    etag, modified_s = str(answer["etag"]).strip('"'), answer["last_modified"].timestamp()
    # The service compares the MD5 that it is given with what it reads, and refuses.
    return ObjectInfo(blob.blob_name, source.info.size, etag, modified_s, COPIED, {"md5": md5} if md5 else {})


def copy_block(blob: BlobClient, block: str, source: CopySource, *, offset: int, size: int) -> None:
    """Copy a range of a blob as a block."""
    blob.stage_block_from_url(block, _url(source), offset, size, headers=_only_this(source))


def _url(source: CopySource) -> str:
    if source.url is None:
        raise StoreError("the source gave no URL", op="copy", key=source.info.key)
    return source.url()


def _only_this(source: CopySource) -> dict[str, str]:
    return {"x-ms-source-if-match": f'"{source.info.etag}"'}
