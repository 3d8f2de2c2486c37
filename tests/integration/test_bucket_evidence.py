"""Looks into a bucket of a real S3 service with the credentials of a BackupBucket's Secret."""

import base64
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from migration_flow import KIB

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.controller.evidence import Evidence, Inspector, Question
from backupagent.errors import KubeNotFound
from backupagent.kube.resources import Document, Resource
from backupagent.model.gardener import BackupBucket, SecretRef, Shoot
from backupagent.operations.copier import Copier
from backupagent.settings import CopySettings
from backupagent.snapstore import SnapStore
from backupagent.stores.local import LocalStore
from backupagent.testing.builders import Deltas, RandomFull, build_chain
from backupagent.testing.servers import MinioServer
from backupagent.transfer.context import Transfer

pytestmark = pytest.mark.servers

SHOOT = Shoot(namespace="garden-dev", name="demo", technical_id="shoot--dev--demo", status_uid="u1")


class SecretKube:
    """Answers with one Secret."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.data = {name: base64.b64encode(value.encode()).decode() for name, value in fields.items()}

    def get(self, resource: Resource, name: str, namespace: str = "") -> Document:
        if (resource.plural, name, namespace) != ("secrets", "generated", "garden"):
            raise KubeNotFound("not found", what="get")
        return {"data": self.data}


@pytest.fixture(scope="module")
def minio(server_binary: Callable[[str], Path]) -> Iterator[MinioServer]:
    with MinioServer(binary=server_binary("minio")) as server:
        yield server


def secret(minio: MinioServer, **changes: str) -> SecretKube:
    fields = {
        "accessKeyID": minio.access_key,
        "secretAccessKey": minio.secret_key,
        "region": minio.REGION,
        "endpoint": minio.endpoint_url,
        "s3ForcePathStyle": "true",
        "bucketName": "evidence",
    }
    return SecretKube(fields | changes)


def look(kube: SecretKube) -> Evidence:
    reference = SecretRef(namespace="garden", name="generated")
    bucket = BackupBucket(name="uid", provider="S3", secret=reference)
    return Inspector(kube, Cancel()).look(Question(shoot=SHOOT, source=bucket, final_answered=True))


def test_a_bucket_is_read_with_the_credentials_of_its_secret(minio: MinioServer, tmp_path: Path) -> None:
    minio.make_bucket("evidence")
    kube = secret(minio)
    found = look(kube)
    assert found.unreadable == ""
    assert found.final_problem is not None
    assert found.final_problem.reason == "EmptySource"
    build_chain(tmp_path, RandomFull(8 * KIB, revision=10), Deltas(2, 5, 100))
    uri = f"s3://evidence/{SHOOT.snapshots_prefix}"
    credentials = {name: base64.b64decode(value).decode() for name, value in kube.data.items()}
    with wiring.open_snapstore(uri, Cancel(), credentials=credentials) as target:
        Copier(SnapStore(LocalStore(tmp_path), ""), target, CopySettings(source="a", target="b"), Transfer()).run()
    found = look(kube)
    assert found.source is not None
    assert len(found.source) == 3
    assert found.final_problem is not None
    assert found.final_problem.reason == "FinalSnapshotMissing"


def test_wrong_credentials_are_told_without_being_shown(minio: MinioServer) -> None:
    told = look(secret(minio, secretAccessKey="hunter2hunter2")).unreadable
    assert "list" in told
    assert "hunter2" not in told
    assert minio.secret_key not in told
