import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.errors import ConfigError
from backupagent.stores import PROVIDERS, Location, open_store, parse_location
from backupagent.stores.location import OPTIONS


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///backups/shoot--a", Location("file", "/backups/shoot--a")),
        ("file://localhost/backups", Location("file", "/backups")),
        ("file:///with%20space/100%25/a%23b", Location("file", "/with space/100%/a#b")),
        ("file:///", Location("file", "/")),
        ("s3://bucket", Location("s3", "bucket")),
        ("s3://bucket/", Location("s3", "bucket")),
        ("s3://bucket/shoot--a--b/etcd-main/", Location("s3", "bucket", "shoot--a--b/etcd-main")),
        ("s3://Bucket.With_Odd-Name/pre%2Ffix%3F", Location("s3", "Bucket.With_Odd-Name", "pre/fix?")),
        ("memory://name/prefix", Location("memory", "name", "prefix")),
        (
            "s3://b/p?endpoint=http://127.0.0.1:9000&region=eu-1&path-style=true&credentials=/var/a%26b+c",
            Location(
                "s3",
                "b",
                "p",
                {
                    "endpoint": "http://127.0.0.1:9000",
                    "region": "eu-1",
                    "path-style": "true",
                    "credentials": "/var/a&b+c",
                },
            ),
        ),
        (
            "az://backups/shoot--a?account=acc&endpoint=http://127.0.0.1:10000/acc&credentials=/c",
            Location(
                "az",
                "backups",
                "shoot--a",
                {"account": "acc", "endpoint": "http://127.0.0.1:10000/acc", "credentials": "/c"},
            ),
        ),
        (
            "gs://backups/p?endpoint=http://127.0.0.1:1&credentials=/c",
            Location("gs", "backups", "p", {"endpoint": "http://127.0.0.1:1", "credentials": "/c"}),
        ),
        ("s3://b?endpoint=https%3A%2F%2Fs3.local", Location("s3", "b", "", {"endpoint": "https://s3.local"})),
    ],
)
def test_reads_a_uri(uri: str, expected: Location) -> None:
    assert parse_location(uri) == expected


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("ftp://host/dir", "file://, s3://"),
        ("bucket/prefix", "file://, s3://"),
        ("/backups", "file://, s3://"),
        ("", "file://, s3://"),
        ("az://container/prefix?region=x", "allowed: account, credentials, endpoint"),
        ("gs://bucket/prefix?account=x", "allowed: credentials, endpoint"),
        ("s3://b/a%5Cb", "backslash"),
        ("s3://", "no bucket"),
        ("s3:///prefix", "no bucket"),
        ("s3://a%2Fb/prefix", "no bucket"),
        ("file://host/dir", "file:///absolute/path"),
        ("file://relative", "file:///absolute/path"),
        ("s3://b/p?colour=red", "allowed: ca-file, credentials, endpoint, path-style, region, "),
        ("file:///d?region=x", "allowed: none"),
        ("s3://b?region=x&region=y", "twice"),
        ("s3://b?path-style=yes", "path-style"),
        ("s3://b?skip-verify=1", "skip-verify"),
        ("s3://b?service=swift", "s3, ecs, ocs, oss"),
        ("s3://b?request-checksums=never", "when_supported, when_required"),
        ("s3://b?storage-class=a b", "storage-class"),
        ("s3://b?storage-class=DEEP_ARCHIVE", "hours"),
        ("s3://b?endpoint=127.0.0.1:9000", "endpoint"),
        ("s3://b?endpoint=ftp://host", "endpoint"),
        ("s3://b?endpoint=http://", "endpoint"),
        ("s3://b?endpoint=http://host:port", "endpoint"),
        ("s3://b?endpoint=http://host?x=1", "endpoint"),
        ("s3://b/p%zz", "%25"),
        ("s3://b/%ff", "UTF-8"),
        ("s3://b/p#fragment", "%23"),
        ("s3://b/a//b", "not the key"),
        ("s3://b/../x", "not the key"),
    ],
)
def test_says_what_is_wrong(uri: str, named: str) -> None:
    with pytest.raises(ConfigError, match=r".*") as raised:
        parse_location(uri)
    assert named in str(raised.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:hunter2@bucket/prefix",
        "s3://hunter2@bucket",
        "memory://hunter2@name",
        "s3://b?secretAccessKey=hunter2",
        "s3://b?password=hunter2",
        "s3://b?session-token=hunter2",
        "s3://b?X-Amz-Signature=hunter2",
        "s3://b?endpoint=http://user:hunter2@host",
        "s3://b?endpoint=http://user:hunter2%40host",
        "file:///d?sas=hunter2",
    ],
)
def test_refuses_secrets_and_does_not_repeat_them(uri: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_location(uri)
    assert "hunter2" not in f"{raised.value} {raised.value.hint} {raised.value.__context__}"


@given(st.text(max_size=30), st.sampled_from(["file", "s3", "memory", "az", "gs", "", "S3"]))
def test_any_text_is_a_location_or_a_config_error(text: str, scheme: str) -> None:
    for uri in (text, f"{scheme}://{text}", f"{scheme}://b/{text}", f"{scheme}://b?endpoint={text}"):
        try:
            location = parse_location(uri)
        except ConfigError:
            continue
        assert location.bucket
        assert location.provider in PROVIDERS


def test_every_scheme_has_options_and_an_opener() -> None:
    assert set(OPTIONS) == set(PROVIDERS)


def test_opens_what_the_uri_says(tmp_path) -> None:
    directory = open_store(parse_location(f"file://{tmp_path}/bucket"))
    directory.put("v2/x", b"1")
    assert (tmp_path / "bucket/v2/x").read_bytes() == b"1"

    store = open_store(parse_location("s3://b/p?endpoint=http://127.0.0.1:9&region=r&path-style=true"))
    assert store.display == "s3://b?endpoint=http://127.0.0.1:9"
    store.close()


def test_memory_stores_of_one_name_are_one() -> None:
    open_store(parse_location("memory://test-one/p")).put("p/a", b"1")
    assert open_store(parse_location("memory://test-one/q")).stat("p/a").size == 1
    assert list(open_store(parse_location("memory://test-two")).list_objects("")) == []


def test_an_unknown_provider_is_named() -> None:
    with pytest.raises(ConfigError, match="known: file, memory, s3, az, gs"):
        open_store(Location("ftp", "host"))
