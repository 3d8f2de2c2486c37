"""What an S3 service tells about a bucket.

Source:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectLockConfiguration.html
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from backupagent.errors import StoreError
from backupagent.stores.base import StoreFacts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_UNLOCKED = ("ObjectLockConfigurationNotFound", "NoSuchObjectLockConfiguration")
"""How services say that a bucket has no object lock."""

Translating = Callable[[str, str], AbstractContextManager[None]]


def bucket_facts(client: "S3Client", bucket: str, translating: Translating) -> StoreFacts:
    """Ask about a bucket.

    Args:
        client: The SDK's.
        bucket: Its name.
        translating: Makes our errors of the SDK's: given the name of the call and a key.

    Raises:
        StoreUnavailable: the service cannot be reached.
    """
    untold: list[str] = []

    def ask(what: str, call: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any] | None:
        try:
            with translating(what, ""):
                return call()
        except StoreError as error:
            if error.retryable:
                raise
            if error.cause.startswith(_UNLOCKED):
                return {}
            untold.append(f"{what}: {error.cause}")
            return None

    head = ask("ask for the bucket", lambda: client.head_bucket(Bucket=bucket))
    versioning = ask("ask for versioning", lambda: client.get_bucket_versioning(Bucket=bucket))
    lock = ask("ask for object lock", lambda: client.get_object_lock_configuration(Bucket=bucket))
    return StoreFacts(
        time_s=None if head is None else _time_s(head),
        versioning=None if versioning is None else versioning.get("Status") == "Enabled",
        retention=None if lock is None else _retention(lock),
        untold=tuple(untold),
    )


def _time_s(answer: Mapping[str, Any]) -> float | None:
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def _retention(answer: Mapping[str, Any]) -> str:
    rule = answer.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {})
    if not rule:
        return ""
    lasts = f"{rule['Days']} days" if "Days" in rule else f"{rule.get('Years', '?')} years"
    return f"object lock keeps new objects for {lasts} ({str(rule.get('Mode', '')).lower()})"
