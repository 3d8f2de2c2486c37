"""Settings and endpoints: read as etcdctl reads them, refused with a reason, without secrets."""

from pathlib import Path

import pytest

from backupagent.errors import ConfigError
from backupagent.etcd.connection import Endpoint, EtcdAccess, parse_endpoint


@pytest.mark.parametrize(
    ("text", "tls_by_default", "expected", "shown"),
    [
        ("http://127.0.0.1:2379", False, Endpoint("127.0.0.1", 2379, tls=False), "127.0.0.1:2379"),
        ("http://127.0.0.1:2379", True, Endpoint("127.0.0.1", 2379, tls=False), "127.0.0.1:2379"),
        ("https://etcd-main:4001/", False, Endpoint("etcd-main", 4001, tls=True), "etcd-main:4001"),
        ("https://etcd-main-client", False, Endpoint("etcd-main-client", 2379, tls=True), "etcd-main-client:2379"),
        ("etcd:1", False, Endpoint("etcd", 1, tls=False), "etcd:1"),
        ("etcd:1", True, Endpoint("etcd", 1, tls=True), "etcd:1"),
        ("[::1]:2379", False, Endpoint("::1", 2379, tls=False), "[::1]:2379"),
        ("https://[fe80::1]", False, Endpoint("fe80::1", 2379, tls=True), "[fe80::1]:2379"),
    ],
)
def test_endpoints(text: str, tls_by_default: bool, expected: Endpoint, shown: str) -> None:
    endpoint = parse_endpoint(text, tls_by_default=tls_by_default)
    assert endpoint == expected
    assert str(endpoint) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://",
        "unix:///run/etcd",
        "ftp://host:1",
        "host:port",
        "http://host:99999",
        "http://host:1/v3",
        "http://h:1?a=b",
    ],
)
def test_what_is_not_an_endpoint(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an etcd endpoint"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    "text", ["http://root:hunter2@host:2379", "root:hunter2@host:2379", "http://root:hunter2@host:port"]
)
def test_password_in_an_endpoint_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_endpoint(text)
    assert "hunter2" not in str(caught.value)
    assert "host" in str(caught.value)


def test_tls_files_make_tls_the_default() -> None:
    settings = EtcdAccess(("a:1", "http://b:2"), ca_cert=Path("ca.crt"))
    assert [endpoint.tls for endpoint in settings.parsed_endpoints()] == [True, False]
    settings = EtcdAccess(("a:1",), cert=Path("tls.crt"), key=Path("tls.key"))
    assert [endpoint.tls for endpoint in settings.parsed_endpoints()] == [True]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"endpoints": ()}, "no etcd endpoint"),
        ({"cert": Path("tls.crt")}, "needs its private key"),
        ({"key": Path("tls.key")}, "a key its certificate"),
        ({"username": "root"}, "needs a password"),
        ({"password": "hunter2"}, "a user name"),
    ],
)
def test_half_of_a_pair_is_refused(fields: dict, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        EtcdAccess(**fields)
    assert "hunter2" not in str(caught.value)


def test_password_is_not_shown() -> None:
    settings = EtcdAccess(username="root", password="hunter2")
    assert "hunter2" not in repr(settings)
    assert "root" in repr(settings)
