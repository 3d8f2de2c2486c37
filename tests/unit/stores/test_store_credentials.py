import json
from pathlib import Path

import pytest

from backupagent.errors import ConfigError
from backupagent.stores import open_store, parse_location
from backupagent.stores.credentials import MAX_SIZE, read_credentials

FIELDS = {"accessKeyID": "AKIA", "secretAccessKey": "hunter2", "region": "eu-1"}


def write_directory(directory: Path, fields: dict[str, str]) -> Path:
    directory.mkdir()
    for name, value in fields.items():
        (directory / name).write_text(value)
    return directory


def test_a_directory_of_files(tmp_path: Path) -> None:
    assert read_credentials(write_directory(tmp_path / "c", FIELDS)) == FIELDS


def test_one_newline_at_the_end_goes_and_nothing_else(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "c", {"region": "eu-1\n", "endpoint": " x \n\n", "accessKeyID": ""})
    assert read_credentials(path) == {"region": "eu-1", "endpoint": " x \n", "accessKeyID": ""}


def test_a_mounted_secret(tmp_path: Path) -> None:
    write_directory(tmp_path / "..2026_11_23", FIELDS)
    (tmp_path / "..data").symlink_to("..2026_11_23")
    for name in FIELDS:
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert read_credentials(tmp_path) == FIELDS


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps(FIELDS | {"s3ForcePathStyle": True, "other": [1], "none": None}))
    assert read_credentials(path) == FIELDS | {"s3ForcePathStyle": "true"}


def test_in_a_directory_the_first_json_counts(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "c", {"region": "file", "b.json": '{"region":"b"}', "a.json": '{"region":"a"}'})
    assert read_credentials(path) == {"region": "a"}


@pytest.mark.parametrize(
    "content",
    [b"hunter2", b'["hunter2"]', b'{"secretAccessKey": "hunter2', b"\xff hunter2", b" " * (MAX_SIZE + 1), b"[" * 60000],
    ids=["text", "list", "cut", "binary", "large", "deep"],
)
def test_bad_json_is_refused_without_repeating_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "credentials.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"credentials\.json") as raised:
        read_credentials(path)
    assert "hunter2" not in f"{raised.value}{raised.value.__cause__}"


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_credentials(tmp_path / "gone")
    with pytest.raises(ConfigError, match="no file"):
        read_credentials(tmp_path)


def opened_with(uri: str, **options: str) -> dict[str, str]:
    """Open a store and look at what its client uses."""
    store = open_store(parse_location(uri), **options)
    client = store._client
    keys = client._request_signer._credentials
    store.close()
    return {
        "access": keys.access_key if keys else "",
        "region": client.meta.region_name,
        "endpoint": client.meta.endpoint_url,
        "style": client.meta.config.s3["addressing_style"],
    }


def test_the_uri_wins_over_the_credentials(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "c", FIELDS | {"endpoint": "http://127.0.0.1:1", "s3ForcePathStyle": "true"})
    assert opened_with(f"s3://b?credentials={path}") == {
        "access": "AKIA", "region": "eu-1", "endpoint": "http://127.0.0.1:1", "style": "path",
    }  # fmt: skip
    uri = f"s3://b?credentials={path}&endpoint=http://127.0.0.1:2&region=eu-2&path-style=false"
    assert opened_with(uri) == {
        "access": "AKIA", "region": "eu-2", "endpoint": "http://127.0.0.1:2", "style": "virtual",
    }  # fmt: skip


def test_the_order_of_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("uri", "dir", "source"):
        write_directory(tmp_path / name, FIELDS | {"accessKeyID": name})
    (tmp_path / "json").write_text(json.dumps(FIELDS | {"accessKeyID": "json"}))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "sdk")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sdk")
    assert opened_with("s3://b?region=r")["access"] == "sdk"
    monkeypatch.setenv("AWS_APPLICATION_CREDENTIALS", str(tmp_path / "dir"))
    assert opened_with("s3://b")["access"] == "dir"
    monkeypatch.setenv("AWS_APPLICATION_CREDENTIALS_JSON", str(tmp_path / "json"))
    assert opened_with("s3://b")["access"] == "json"
    assert opened_with(f"s3://b?credentials={tmp_path}/uri")["access"] == "uri"
    monkeypatch.setenv("SOURCE_AWS_APPLICATION_CREDENTIALS", str(tmp_path / "source"))
    assert opened_with("s3://b", variable_prefix="SOURCE_")["access"] == "source"
    assert opened_with("s3://b")["access"] == "json"


def test_half_a_key_pair_is_refused(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "c", {"accessKeyID": "AKIA", "region": "r"})
    with pytest.raises(ConfigError, match="secretAccessKey"):
        open_store(parse_location(f"s3://b?credentials={path}"))
