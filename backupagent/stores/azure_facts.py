"""What Azure tells about a container.

Source:
    https://learn.microsoft.com/rest/api/storageservices/get-container-properties
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from backupagent.stores.base import StoreFacts


def container_facts(headers: Mapping[str, str]) -> StoreFacts:
    """Read the headers of the container's properties; versioning and soft delete are the account's, and not in them."""
    lower = {name.lower(): value for name, value in headers.items()}
    kept = {
        "an immutability policy": lower.get("x-ms-has-immutability-policy"),
        "a legal hold": lower.get("x-ms-has-legal-hold"),
    }
    reasons = [what for what, value in kept.items() if value == "true"]
    try:
        time_s = parsedate_to_datetime(lower.get("date", "")).timestamp()
    except ValueError:
        time_s = None
    return StoreFacts(
        time_s=time_s,
        retention=f"the container has {' and '.join(reasons)}" if reasons else "",
        untold=("versioning and soft delete: they are settings of the account",),
    )
