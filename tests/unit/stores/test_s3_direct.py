"""Where direct requests go: what the SDK says, asked without a request."""

import pytest

from backupagent.errors import ConfigError, StoreError
from backupagent.stores.s3 import open_s3
from backupagent.stores.s3_direct import DirectRequests
from backupagent.stores.s3_settings import S3Settings

ARN = "arn:aws:s3:eu-north-1:123456789012:accesspoint/ap"


def opened(bucket: str, endpoint: str, region: str, *, path_style: bool | None) -> DirectRequests:
    settings = S3Settings(bucket, endpoint, region, path_style, access_key_id="AK/IA", secret_access_key="hunter2")
    return open_s3(settings)._direct


@pytest.mark.parametrize(
    ("bucket", "endpoint", "region", "path_style", "expected"),
    [
        ("b-1", "", "eu-west-1", None, ("https", "b-1.s3.eu-west-1.amazonaws.com", "/", "eu-west-1")),
        ("b-1", "", "eu-west-1", True, ("https", "s3.eu-west-1.amazonaws.com", "/b-1/", "eu-west-1")),
        ("b.1", "", "cn-north-1", None, ("https", "s3.cn-north-1.amazonaws.com.cn", "/b.1/", "cn-north-1")),
        (ARN, "", "", None, ("https", "ap-123456789012.s3-accesspoint.eu-north-1.amazonaws.com", "/", "eu-north-1")),
        ("b-1", "http://h:9000", "", None, ("http", "h:9000", "/b-1/", "us-east-1")),
        ("b-1", "https://h.example/base", "r", False, ("https", "b-1.h.example", "/base/", "r")),
        ("b-1", "https://h:443", "r", True, ("https", "h", "/b-1/", "r")),
        ("b-1", "http://h:80", "r", True, ("http", "h", "/b-1/", "r")),
        ("b-1", "http://[::1]:9000", "r", True, ("http", "[::1]:9000", "/b-1/", "r")),
    ],
)
def test_routes(bucket: str, endpoint: str, region: str, path_style: bool | None, expected: tuple[str, ...]) -> None:
    route = opened(bucket, endpoint, region, path_style=path_style)._route()
    scheme, host, path, signed_region = expected
    assert route.connections._origin == f"{scheme}://{host}"
    assert (route.host, route.path) == (host, path)
    assert (route.signer._region, route.signer._service) == (signed_region, "s3")
    assert "Boto3" in route.agent
    assert "hunter2" not in repr(route)


def test_a_route_is_found_once() -> None:
    direct = opened("b", "http://h", "r", path_style=True)
    assert direct._route() is direct._route()


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_cas_are_those_of_the_sdk(monkeypatch: pytest.MonkeyPatch, tmp_path, variable: str) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "none.pem"))
    settings = S3Settings("b", "https://h", "r", path_style=True, access_key_id="a", secret_access_key="s")
    with pytest.raises(ConfigError, match=r"none\.pem"):
        open_s3(settings)


def test_one_key_without_the_other_is_refused() -> None:
    with pytest.raises(StoreError, match="Partial"):
        open_s3(S3Settings("b", "http://h", "r", access_key_id="AKIA"))


def test_credentials_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "ASIA"), ("SECRET_ACCESS_KEY", "hunter2"), ("SESSION_TOKEN", "token")):
        monkeypatch.setenv(f"AWS_{name}", value)
    credentials = open_s3(S3Settings("b", "http://h", "r"))._direct._credentials
    assert credentials is not None
    assert tuple(credentials.get_frozen_credentials())[:3] == ("ASIA", "hunter2", "token")
