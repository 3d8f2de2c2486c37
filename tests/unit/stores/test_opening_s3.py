"""What the URI, the credentials and the kind of service say together about a bucket of S3."""

import base64
import json
from pathlib import Path

import pytest
from scripted import ScriptedServer, answer

from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import AccessDenied, ConfigError
from backupagent.stores import open_store, parse_location
from backupagent.stores.opening import Opening
from backupagent.stores.opening_s3 import ALIASES, ECS_VARIABLES, FIELDS, settings_of
from backupagent.stores.s3_settings import Checksums, CustomerKey, Role, S3Settings, Trust

KEYS = {"accessKeyID": "AKIA", "secretAccessKey": "hunter2", "region": "eu-1"}
RAW = "0123456789abcdef0123456789abcdef"
ARN = "arn:aws:iam::1:role/backup"


def settings(uri: str = "s3://b", fields: dict[str, str] | None = None, variable_prefix: str = "") -> S3Settings:
    return settings_of(Opening(parse_location(uri), SYSTEM_CLOCK, variable_prefix, False, fields))


def refused(uri: str = "s3://b", **fields: str) -> str:
    with pytest.raises(ConfigError) as raised:
        settings(uri, KEYS | fields)
    assert "hunter2" not in str(raised.value)
    assert RAW not in str(raised.value)
    return str(raised.value)


class TestOptions:
    def test_they_win_over_the_fields(self, tmp_path: Path) -> None:
        fields = KEYS | {
            "insecureSkipVerify": "true", "requestChecksumCalculation": "when_supported",
            "responseChecksumValidation": "WHEN_SUPPORTED",
        }  # fmt: skip
        uri = (
            f"s3://b?storage-class=STANDARD_IA&ca-file={tmp_path}/ca.pem&skip-verify=false"
            "&request-checksums=when_required&response-checksums=when_required"
        )
        found = settings(uri, fields)
        assert found.storage_class == "STANDARD_IA"
        assert found.trust == Trust(ca_file=f"{tmp_path}/ca.pem")
        assert (found.request_checksums, found.response_checksums) == (Checksums.WHEN_REQUIRED,) * 2
        by_fields = settings("s3://b", fields)
        assert by_fields.trust == Trust(verify=False)
        assert by_fields.request_checksums == by_fields.response_checksums == Checksums.WHEN_SUPPORTED

    def test_certificates_are_verified_unless_somebody_says_so(self) -> None:
        assert settings(fields=KEYS).trust == Trust()
        assert settings(fields=KEYS | {"insecureSkipVerify": "false"}).trust.verify
        assert not settings("s3://b?skip-verify=true", KEYS | {"trustedCaCert": "PEM"}).trust.verify

    def test_cas_that_are_named_are_meant_as_with_the_peer(self) -> None:
        both = KEYS | {"trustedCaCert": "PEM", "insecureSkipVerify": "true"}
        assert settings(fields=both).trust == Trust(ca_pem="PEM")

    def test_what_makes_no_sense_is_refused(self) -> None:
        assert "insecureSkipVerify" in refused(insecureSkipVerify="perhaps")
        assert "s3ForcePathStyle" in refused(s3ForcePathStyle="2")
        assert "requestChecksumCalculation" in refused(requestChecksumCalculation="always")
        assert "only one" in refused(sseCustomerKey=RAW)
        assert "only one" in refused(sseCustomerAlgorithm="AES256")
        assert "32 bytes" in refused(sseCustomerKey=RAW[1:], sseCustomerAlgorithm="AES256")
        assert "plain HTTP" in refused("s3://b?endpoint=http://h", sseCustomerKey=RAW, sseCustomerAlgorithm="AES256")


class TestCustomerKey:
    def test_both_forms_are_the_same_key(self) -> None:
        encoded = base64.b64encode(RAW.encode()).decode()
        fields = KEYS | {"sseCustomerAlgorithm": "AES256"}
        found = [settings(fields=fields | {"sseCustomerKey": text}).customer_key for text in (RAW, encoded)]
        assert found[0] == found[1] == CustomerKey(RAW.encode())
        assert found[0] is not None
        assert found[0].headers() == {
            "x-amz-server-side-encryption-customer-algorithm": "AES256",
            "x-amz-server-side-encryption-customer-key": encoded,
            "x-amz-server-side-encryption-customer-key-md5": "hRasmdxgYDKV3nvbahU1MA==",
        }
        assert list(found[0].headers(of_source=True)) == [
            f"x-amz-copy-source-server-side-encryption-customer-{name}" for name in ("algorithm", "key", "key-md5")
        ]

    def test_it_is_not_shown(self) -> None:
        shown = repr(settings(fields=KEYS | {"sseCustomerKey": RAW, "sseCustomerAlgorithm": "AES256"}))
        assert RAW not in shown
        assert "hunter2" not in shown


class TestRole:
    def test_from_a_directory_the_token_is_read_when_it_is_needed(self, tmp_path: Path) -> None:
        for name, value in {"roleARN": ARN, "region": "eu-1", "token": "old"}.items():
            (tmp_path / name).write_text(value)
        found = settings(f"s3://b?credentials={tmp_path}")
        assert found.role == Role(ARN, token_file=tmp_path / "token")
        assert found.access_key_id == ""

    def test_from_json_and_from_memory(self, tmp_path: Path) -> None:
        (tmp_path / "c.json").write_text(json.dumps({"roleARN": ARN, "region": "r", "tokenPath": "/run/token"}))
        assert settings(f"s3://b?credentials={tmp_path}/c.json").role == Role(ARN, token_file=Path("/run/token"))
        assert settings(fields={"roleARN": ARN, "token": "t"}).role == Role(ARN, token="t")
        assert settings(fields=KEYS | {"roleARN": ARN, "token": "t"}).role is None  # as with the peer

    def test_half_of_one_is_refused(self) -> None:
        for fields, named in (
            ({"roleARN": ARN}, "lack its token"),
            ({"roleARN": ARN, "tokenPath": "token"}, "not absolute"),
            ({"token": "t"}, "accessKeyID"),
        ):
            with pytest.raises(ConfigError, match=named):
                settings(fields=fields)


class TestServices:
    def test_ecs_has_variables_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = ("ecs.example:9021", "user", "hunter2", "false", "true")
        for name, value in zip(ECS_VARIABLES, values, strict=True):
            monkeypatch.setenv(name, value)
        for prefix in ("", "SOURCE_"):
            found = settings("s3://b?service=ecs", variable_prefix=prefix)
            assert (found.endpoint, found.access_key_id) == ("https://ecs.example:9021", "user")
            assert (found.path_style, found.region, found.trust.verify) == (True, "US-Standard", False)
        monkeypatch.setenv("ECS_DISABLE_SSL", "1")
        assert settings("s3://b?service=ecs").endpoint == "http://ecs.example:9021"

    def test_ocs_has_files(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "c.json").write_text(json.dumps(KEYS | {"endpoint": "http://ocs:80", "disableSSL": True}))
        monkeypatch.setenv("SOURCE_OPENSHIFT_APPLICATION_CREDENTIALS", str(tmp_path))
        found = settings("s3://b?service=ocs", variable_prefix="SOURCE_")
        assert (found.endpoint, found.path_style, found.region) == ("http://ocs:80", True, "eu-1")
        with pytest.raises(ConfigError, match="OPENSHIFT") as raised:
            settings("s3://b?service=ocs")
        assert "OPENSHIFT_APPLICATION_CREDENTIALS" in raised.value.hint

    def test_oss_has_other_names(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name, value in {
            "storageEndpoint": "oss-eu-central-1-internal.aliyuncs.com", "accessKeyID": "i", "accessKeySecret": "k",
        }.items():  # fmt: skip
            (tmp_path / name).write_text(value)
        monkeypatch.setenv("ALICLOUD_APPLICATION_CREDENTIALS", str(tmp_path))
        found = settings("s3://b?service=oss")
        assert found.endpoint == "https://oss-eu-central-1-internal.aliyuncs.com"
        assert (found.region, found.path_style, found.secret_access_key) == ("oss-eu-central-1", False, "k")

    def test_oss_by_its_s3_interface_on_the_wire(self) -> None:
        """UNPROVEN: nothing here answers as OSS does; this only shows what is sent to it."""
        server = ScriptedServer()
        port = server.listener.getsockname()[1]
        server.answers = [answer("200 OK", b'ETag: "e"\r\nDate: Mon, 23 Nov 2026 17:42:40 GMT\r\n')]
        fields = {"storageEndpoint": f"http://127.0.0.1:{port}", "accessKeyID": "i", "accessKeySecret": "hunter2"}
        store = open_store(parse_location("s3://b?service=oss&path-style=true"), credentials=fields)
        store.put("a", b"content")
        store.close()
        server.close()
        ((line, headers, body),) = server.requests
        assert (line, body) == ("PUT /b/a HTTP/1.1", b"content")
        assert "Credential=i/" in headers["authorization"]
        assert "hunter2" not in str(headers)

    def test_every_field_is_described(self) -> None:
        assert set(ALIASES) | set(ALIASES.values()) | set(ECS_VARIABLES.values()) <= set(FIELDS)


STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>
<SecretAccessKey>s</SecretAccessKey><SessionToken>session-{key}</SessionToken>
<Expiration>{until}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


class TestRoleOnTheWire:
    """UNPROVEN: a token service that checks the token; this shows what it is sent and what is done with its answer."""

    def test_the_token_is_read_anew_each_time(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        server = ScriptedServer()
        endpoint = f"http://127.0.0.1:{server.listener.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint)
        for name, value in {"roleARN": ARN, "region": "eu-1", "token": "first"}.items():
            (tmp_path / name).write_text(value)
        put = answer("200 OK", b'ETag: "e"\r\nDate: Mon, 23 Nov 2026 17:42:40 GMT\r\n')
        server.answers = [
            answer("200 OK", body=STS.format(key="AKIA0", until="2026-01-01T00:00:00Z").encode()),
            answer("200 OK", body=STS.format(key="AKIA1", until="2999-01-01T00:00:00Z").encode()),
            put,
            put,
        ]
        store = open_store(parse_location(f"s3://b?credentials={tmp_path}&endpoint={endpoint}&path-style=true"))
        with pytest.raises(AccessDenied, match="check the clock"):
            store.put("a", b"x")
        (tmp_path / "token").write_text("second")
        store.put("a", b"x")
        store.put("a", b"x")
        store.close()
        server.close()
        tokens = [body.decode() for line, _, body in server.requests if line.startswith("POST")]
        assert [token in body for token, body in zip(("first", "second"), tokens, strict=True)] == [True] * 2
        puts = [headers for line, headers, _ in server.requests if line.startswith("PUT")]
        assert [headers["x-amz-security-token"] for headers in puts] == [f"session-AKIA{number}" for number in (1, 1)]

    def test_a_token_that_is_not_there_or_not_taken_is_access_denied(self, monkeypatch, tmp_path: Path) -> None:
        server = ScriptedServer()
        endpoint = f"http://127.0.0.1:{server.listener.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint)
        fields = {"roleARN": ARN, "region": "eu-1", "tokenPath": str(tmp_path / "token")}
        uri = f"s3://b?endpoint={endpoint}&path-style=true"
        store = open_store(parse_location(uri), credentials=fields)
        with pytest.raises(AccessDenied, match="cannot read the token") as raised:
            store.put("a", b"x")
        assert "credentials" in raised.value.hint
        (tmp_path / "token").write_text("old-token")
        refusal = (
            "<ErrorResponse><Error><Code>ExpiredTokenException</Code><Message>old</Message></Error></ErrorResponse>"
        )
        server.answers = [answer("400 Bad Request", body=refusal.encode())]
        with pytest.raises(AccessDenied, match="ExpiredToken"):
            store.put("a", b"x")
        store.close()
        server.close()
