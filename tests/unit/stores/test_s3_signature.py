"""The signature, compared with the one that botocore makes of the same request."""

from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials

from backupagent.clock import FakeClock
from backupagent.stores.s3_signature import Signer

KEYS = ReadOnlyCredentials("AKIA", "hunter2", None)
SESSION = ReadOnlyCredentials("ASIA", "hunter3", "a/token+of=base64")
DAY_S = 24 * 60 * 60


def by_botocore(
    monkeypatch: pytest.MonkeyPatch, now: datetime, credentials: ReadOnlyCredentials, request: AWSRequest
) -> str:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now)
    request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(request)
    return request.headers["Authorization"]


@pytest.mark.parametrize("credentials", [KEYS, SESSION], ids=["keys", "session"])
@pytest.mark.parametrize(
    ("method", "path", "query", "headers"),
    [
        ("HEAD", "/bucket/a", "", {}),
        ("GET", "/v2/Full-00000000-00000042-1795400591.gz", "", {"range": "bytes=0-9", "if-match": '"e"'}),
        ("PUT", "/b/%C3%BC%20%25/~%2B%3D", "partNumber=2&uploadId=a-b._~%2F", {"x-amz-checksum-crc32": "AAAABw=="}),
        ("PUT", "/b/a", "", {"x-amz-meta-backupagent": '{"a":  "two   blanks"}', "if-none-match": "*"}),
    ],
)
def test_as_botocore_signs(monkeypatch, method: str, path: str, query: str, headers, credentials) -> None:
    clock = FakeClock(datetime(2026, 11, 23, 17, 42, 40, tzinfo=UTC))
    sent = {"host": "s3.example:9000", **headers}
    request = AWSRequest(method, f"https://s3.example:9000{path}" + (f"?{query}" if query else ""), headers=sent)
    expected = by_botocore(monkeypatch, clock.now(), credentials, request)
    signed = Signer("eu-west-1", "s3", clock).sign(credentials, method, path, query, sent)
    assert signed["authorization"] == expected
    for name, value in request.headers.items():
        assert signed[name.lower()] == value
    assert signed.get("x-amz-security-token") == credentials.token


def test_the_derived_key_is_renewed_with_the_day_and_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    signer = Signer("eu-west-1", "s3", clock)
    other = KEYS._replace(secret_key="another")
    for credentials, then_s in ((KEYS, 0), (KEYS, 0), (other, DAY_S), (other, 0), (KEYS, 0)):
        request = AWSRequest("GET", "https://h/a", headers={"host": "h"})
        expected = by_botocore(monkeypatch, clock.now(), credentials, request)
        assert signer.sign(credentials, "GET", "/a", "", {"host": "h"})["authorization"] == expected
        clock.sleep(then_s)


def test_no_secret_is_shown() -> None:
    signer = Signer("eu-west-1", "s3", FakeClock())
    signed = signer.sign(KEYS, "GET", "/a", "", {"host": "h"})
    assert "hunter2" not in f"{signer!r} {signer._key!r} {signed}"
