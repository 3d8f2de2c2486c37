"""What the controller remembers about a migration: the ConfigMap beside the Shoot, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from backupagent.controller.reports import belongs, decoded
from backupagent.kube.client import Kube
from backupagent.kube.resources import CONFIG_MAPS, Document
from backupagent.model.gardener import Shoot
from backupagent.model.migration import LABEL, REPORT_KEY, MigrationReport, config_map_name, encode_report
from backupagent.operations.arrival import SourceSnapshot

SOURCE_KEY = "source-objects"
"""Key of the list of what the source held: lines of name, size and quoted etag."""

MAX_SNAPSHOTS = 8_000
"""Snapshots in that list: with 110 bytes a line it stays under the 1 MiB that a ConfigMap can hold."""

MAX_DIGITS = 18
"""Of a size: what fits an int64."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What was known when the controller looked last.

    Attributes:
        report: The report of this migration; None when there is none.
        source: What the source held when it was seen last; None when nobody saw it.
        data: The ConfigMap's data as it is now.
    """

    report: MigrationReport | None = None
    source: tuple[SourceSnapshot, ...] | None = None
    data: Mapping[str, str] | None = None


def remember(kube: Kube, shoot: Shoot) -> Memory:
    """Read what is known about the migration that a Shoot is in; what is about an earlier one is left aside.

    Raises:
        KubeError: the API server does not answer, or refuses.
    """
    config_map = kube.find(CONFIG_MAPS, config_map_name(shoot.name), shoot.namespace)
    if config_map is None:
        return Memory()
    found = config_map.get("data")
    data = (
        {str(key): value for key, value in found.items() if isinstance(value, str)}
        if isinstance(found, Mapping)
        else {}
    )
    report = decoded(config_map).report
    if report is None or not belongs(report, shoot):
        return Memory(data=data)
    return Memory(report=report, source=decode_source(data.get(SOURCE_KEY, "")), data=data)


def config_map(shoot: Shoot, report: MigrationReport, source: Sequence[SourceSnapshot] | None) -> Document:
    """Return the ConfigMap that remembers a migration; it goes when its Shoot goes."""
    document = CONFIG_MAPS.stub(config_map_name(shoot.name), shoot.namespace)
    document["metadata"]["labels"] = {LABEL: "true"}
    document["metadata"]["ownerReferences"] = [
        {"apiVersion": "core.gardener.cloud/v1beta1", "kind": "Shoot", "name": shoot.name, "uid": shoot.uid}
    ]
    document["data"] = {REPORT_KEY: encode_report(report)}
    if source is not None and len(source) <= MAX_SNAPSHOTS:
        document["data"][SOURCE_KEY] = encode_source(source)
    return document


def encode_source(snapshots: Sequence[SourceSnapshot]) -> str:
    """Write what the source held; an empty source gives an empty text."""
    return "".join(f"{found.name} {found.size} {quote(found.etag, safe='')}\n" for found in snapshots)


def decode_source(text: str) -> tuple[SourceSnapshot, ...] | None:
    """Read what the source held; None when that is not known, or when others wrote into it."""
    snapshots: list[SourceSnapshot] = []
    for line in text.splitlines():
        name, _space, rest = line.partition(" ")
        size, _space, etag = rest.partition(" ")
        if not (name and size.isascii() and size.isdecimal() and len(size) <= MAX_DIGITS):
            return None
        snapshots.append(SourceSnapshot(name, int(size), unquote(etag)))
    return tuple(snapshots) or None
