"""A copy between two stores that are made up."""

from snapshot_fakes import transfer

from backupagent.model.manifest import Manifest
from backupagent.model.snapshot import StoredSnapshot
from backupagent.operations.copier import Copier
from backupagent.operations.report import CopyReport
from backupagent.settings import CopySettings, VerifyMode
from backupagent.snapstore import SnapStore


def copy(
    source: SnapStore,
    target: SnapStore,
    *,
    part_size: int = 64 * 1024,
    workers: int = 1,
    newest_chain_only: bool = False,
    max_backups: int = 0,
    max_backup_age: float = 0,
    verify: VerifyMode = VerifyMode.TRAILER,
    shard: str = "",
    server_side_copy: bool = True,
) -> CopyReport:
    settings = CopySettings(
        source="memory://source/p",
        target="memory://target/p",
        newest_chain_only=newest_chain_only,
        max_backups=max_backups,
        max_backup_age=max_backup_age,
        verify=verify,
        shard=shard,
        server_side_copy=server_side_copy,
    )
    return Copier(source, target, settings, transfer(part_size=part_size, workers=workers)).run()


def stored(where: SnapStore, name: str) -> StoredSnapshot:
    return next(found for found in where.list().snapshots if found.name == name)


def manifest(where: SnapStore, name: str) -> Manifest:
    found = where.manifest(stored(where, name), where.list())
    assert found is not None
    return found
