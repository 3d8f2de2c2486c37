"""The peer's names of stores."""

import pytest

from backupagent.errors import ConfigError
from backupagent.stores import parse_location
from backupagent.stores.peer import PROVIDER_NAMES, SCHEMES, peer_uri


@pytest.mark.parametrize(
    ("provider", "scheme"),
    [("S3", "s3"), ("aws", "s3"), ("stackit", "s3"), ("ABS", "az"), ("azure", "az"), ("GCS", "gs")],
)
def test_every_name_of_a_provider_has_a_scheme(provider: str, scheme: str) -> None:
    assert peer_uri(provider, "bucket", "shoot--x--1/etcd-main") == f"{scheme}://bucket/shoot--x--1/etcd-main"


def test_endpoint_and_credentials_survive() -> None:
    uri = peer_uri("S3", "b", "p q/r", endpoint="http://127.0.0.1:9000", credentials="/var/etcd-backup")
    location = parse_location(uri)
    assert (location.bucket, location.prefix) == ("b", "p q/r")
    assert location.options == {"endpoint": "http://127.0.0.1:9000", "credentials": "/var/etcd-backup"}


def test_local_lies_below_home_even_when_it_looks_absolute() -> None:
    assert parse_location(peer_uri("Local", "/abs/dir", "pre", home="/home/me")).bucket == "/home/me/abs/dir/pre"
    assert parse_location(peer_uri("local", "", "", home="/home/me")).bucket == "/home/me/default.bkp"


@pytest.mark.parametrize(
    ("provider", "service"),
    [("ECS", "ecs"), ("dell", "ecs"), ("OCS", "ocs"), ("openshift", "ocs"), ("OSS", "oss"), ("alicloud", "oss")],
)
def test_services_that_speak_s3_keep_their_credentials(provider: str, service: str) -> None:
    location = parse_location(peer_uri(provider, "b", "p", credentials="/var/etcd-backup"))
    assert location.options == {"service": service, "credentials": "/var/etcd-backup"}


@pytest.mark.parametrize("provider", ["", "nonsense", "Swift", "openstack"])
def test_others_are_refused_with_a_way_out(provider: str) -> None:
    with pytest.raises(ConfigError, match="not supported") as refused:
        peer_uri(provider, "b", "p")
    assert refused.value.exit_code == 2
    assert "S3 interface" in f"{refused.value} {refused.value.hint}"
    assert "--storage-provider=S3" in refused.value.hint


def test_a_bucket_is_needed() -> None:
    with pytest.raises(ConfigError, match="container name not specified"):
        peer_uri("S3", "", "p")


def test_a_prefix_below_which_nothing_would_be_found_is_refused() -> None:
    with pytest.raises(ConfigError, match="begins with a slash"):
        peer_uri("S3", "b", "/p")


def test_every_name_is_told_to_users() -> None:
    names = [name.lower() for name in PROVIDER_NAMES]
    assert sorted(names + [other for others in PROVIDER_NAMES.values() for other in others]) == sorted(SCHEMES)
