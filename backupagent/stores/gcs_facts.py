"""What Google tells about a bucket.

Source:
    https://cloud.google.com/storage/docs/json_api/v1/buckets
"""

from collections.abc import Mapping
from typing import Any

from backupagent.stores.base import StoreFacts

BUCKET_FIELDS = "versioning,retentionPolicy,softDeletePolicy,defaultEventBasedHold"


def bucket_facts(bucket: Mapping[str, Any]) -> StoreFacts:
    """Read the description of a bucket. What is deleted softly stays for a time, as a version does."""
    soft_s = int((bucket.get("softDeletePolicy") or {}).get("retentionDurationSeconds") or 0)
    kept_s = int((bucket.get("retentionPolicy") or {}).get("retentionPeriod") or 0)
    reasons = [f"a retention policy keeps new objects for {kept_s} s"] if kept_s else []
    if bucket.get("defaultEventBasedHold"):
        reasons.append("new objects get an event-based hold")
    return StoreFacts(
        versioning=bool((bucket.get("versioning") or {}).get("enabled")) or soft_s > 0,
        retention=", ".join(reasons),
    )
