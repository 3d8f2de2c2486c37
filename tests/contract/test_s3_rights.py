"""The rights that the page about stores asks for, given to a session of a real server: enough, and needed."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.cli.stores_page import policy, source_policy, target_policy
from backupagent.errors import AccessDenied, PartialFailure
from backupagent.progress import Progress
from backupagent.settings import CopySettings
from backupagent.testing.servers import MinioServer

pytestmark = pytest.mark.servers

GOLDEN = Path(__file__).parent.parent / "golden" / "gzip"
_serial = itertools.count(1)


@pytest.fixture
def limited(minio: MinioServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put credentials into the environment that may do only what a policy says."""
    client = boto3.client(
        "sts", endpoint_url=minio.endpoint_url, region_name=minio.REGION, aws_access_key_id=minio.access_key,
        aws_secret_access_key=minio.secret_key, config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip

    def become(document: str) -> None:
        answer = client.assume_role(
            RoleArn="arn:aws:iam::1:role/any", RoleSessionName="any", Policy=json.dumps(json.loads(document))
        )
        for name, field in (("ACCESS_KEY_ID", "AccessKeyId"), ("SECRET_ACCESS_KEY", "SecretAccessKey")):
            monkeypatch.setenv(f"AWS_{name}", answer["Credentials"][field])
        monkeypatch.setenv("AWS_SESSION_TOKEN", answer["Credentials"]["SessionToken"])

    return become


@pytest.mark.parametrize("versions", [False, True], ids=["plain", "versions"])
def test_they_are_enough_for_copies(
    minio: MinioServer, limited: Callable[[str], None], tmp_path: Path, *, versions: bool
) -> None:
    bucket = f"rights-{next(_serial)}"
    minio.make_bucket(bucket, object_lock=versions)
    uri = f"s3://{bucket}/p?endpoint={minio.endpoint_url}&region={minio.REGION}&path-style=true"
    limited(target_policy(bucket, versions=versions))
    copied = wiring.run_copy(CopySettings(source=GOLDEN.as_uri(), target=uri, part_size=5 << 20), Progress(), Cancel())
    limited(source_policy(bucket, versions=versions))
    back = CopySettings(source=uri, target=(tmp_path / "back").as_uri())
    assert wiring.run_copy(back, Progress(), Cancel()).copied == copied.copied > 1
    # And with List and Get alone, of whatever bucket.
    limited(source_policy(bucket, versions=False))
    plain = CopySettings(source=uri, target=(tmp_path / "plain").as_uri())
    assert wiring.run_copy(plain, Progress(), Cancel()).copied == copied.copied


def test_a_source_that_may_not_read_and_a_target_that_may_not_write(
    minio: MinioServer, limited: Callable[[str], None], tmp_path: Path
) -> None:
    bucket = f"rights-{next(_serial)}"
    minio.make_bucket(bucket)
    uri = f"s3://{bucket}/p?endpoint={minio.endpoint_url}&region={minio.REGION}&path-style=true"
    limited(source_policy(bucket, versions=False))
    with pytest.raises((AccessDenied, PartialFailure)) as raised:
        wiring.run_copy(CopySettings(source=GOLDEN.as_uri(), target=uri), Progress(), Cancel())
    assert "AccessDenied" in str(raised.value)
    limited(policy(bucket, ("s3:GetBucketLocation",), ("s3:GetObject",)))
    with pytest.raises(AccessDenied):
        wiring.run_copy(CopySettings(source=uri, target=(tmp_path / "t").as_uri()), Progress(), Cancel())
