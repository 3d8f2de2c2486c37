"""From URIs and the peer's credentials to Azure and Google stores; none of these tests makes a request."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from azure.identity import DefaultAzureCredential, WorkloadIdentityCredential
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import identity_pool
from google.auth.credentials import AnonymousCredentials
from google.oauth2 import service_account

from backupagent.errors import ConfigError
from backupagent.stores import open_store, parse_location
from backupagent.stores.azure import AzureStore
from backupagent.stores.gcs import GcsStore

KEY = base64.b64encode(b"hunter2 hunter2").decode()
AZURE = {"storageAccount": "account", "storageKey": KEY}


@pytest.fixture(scope="module")
def account() -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return {
        "type": "service_account",
        "project_id": "project",
        "private_key": pem,
        "client_email": "agent@project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }


EXTERNAL = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "credential_source": {"url": "http://169.254.169.254/"},
}


def write(folder: Path, fields: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in fields.items():
        (folder / name).write_text(value)
    return folder


def azure(uri: str, **options: object) -> AzureStore:
    store = open_store(parse_location(uri), **options)
    assert isinstance(store, AzureStore)
    store.close()
    return store


def gcs_credentials(uri: str, **options: object) -> object:
    store = open_store(parse_location(uri), **options)
    assert isinstance(store, GcsStore)
    store.close()
    return store._service.credentials


class TestAzure:
    def test_the_account_is_found_in_the_public_cloud(self, tmp_path: Path) -> None:
        store = azure(f"az://cont/p?credentials={write(tmp_path / 'c', AZURE)}")
        assert store._container.url == "https://account.blob.core.windows.net/cont"
        assert store.display == "az://cont?account=account"

    def test_another_domain(self) -> None:
        store = azure("az://cont", credentials=AZURE | {"domain": "blob.core.chinacloudapi.cn"})
        assert store._container.url == "https://account.blob.core.chinacloudapi.cn/cont"

    def test_the_uri_wins(self) -> None:
        store = azure("az://cont?account=other&endpoint=http://127.0.0.1:1/other", credentials=AZURE)
        assert store._container.url == "http://127.0.0.1:1/other/cont"
        assert store._container.credential.account_name == "other"
        assert store.display == "az://cont?endpoint=http://127.0.0.1:1/other"

    def test_the_order_of_the_variables(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("uri", "directory", "source"):
            write(tmp_path / name, AZURE | {"storageAccount": name})
        (tmp_path / "json").write_text(json.dumps(AZURE | {"storageAccount": "json"}))
        monkeypatch.setenv("AZURE_APPLICATION_CREDENTIALS", str(tmp_path / "directory"))
        assert "account=directory" in azure("az://cont").display
        monkeypatch.setenv("AZURE_APPLICATION_CREDENTIALS_JSON", str(tmp_path / "json"))
        assert "account=json" in azure("az://cont").display
        assert "account=uri" in azure(f"az://cont?credentials={tmp_path}/uri").display
        monkeypatch.setenv("SOURCE_AZURE_APPLICATION_CREDENTIALS", str(tmp_path / "source"))
        assert "account=source" in azure("az://cont", variable_prefix="SOURCE_").display
        (tmp_path / "source-json").write_text(json.dumps(AZURE | {"storageAccount": "sourcejson"}))
        monkeypatch.setenv("SOURCE_AZURE_APPLICATION_CREDENTIALS_JSON", str(tmp_path / "source-json"))
        assert "account=sourcejson" in azure("az://cont", variable_prefix="SOURCE_").display
        assert "account=json" in azure("az://cont").display

    def test_a_directory_with_a_json_document(self, tmp_path: Path) -> None:
        """As a mounted Secret has it: with the names that the peer's documents have, of which some are not for us."""
        document = AZURE | {"bucketName": "other", "domain": "blob.core.usgovcloudapi.net"}
        store = azure(f"az://cont?credentials={write(tmp_path / 'c', {'azure.json': json.dumps(document)})}")
        assert store._container.url == "https://account.blob.core.usgovcloudapi.net/cont"

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"storageAccount": "account"}, "storageKey"),
            ({"storageKey": KEY}, "storageAccount"),
            (AZURE | {"storageKey": "hunter2!"}, "base64"),
            (AZURE | {"storageAccount": "evil.example/"}, "lower case"),
            (AZURE | {"domain": "evil.example/?"}, "host name"),
        ],
    )
    def test_bad_credentials(self, fields: dict[str, str], named: str) -> None:
        with pytest.raises(ConfigError, match=named) as raised:
            azure("az://cont", credentials=fields)
        assert "hunter2" not in f"{raised.value}{raised.value.__cause__}"

    def test_without_an_account_nothing_is_opened(self) -> None:
        with pytest.raises(ConfigError, match="not named"):
            azure("az://cont")

    def test_without_credentials_those_of_the_surroundings_count(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of a Pod with workload identity; nothing is asked before the first request."""
        (tmp_path / "token").write_text("federated")
        for name, value in (
            ("CLIENT_ID", "client"), ("TENANT_ID", "tenant"), ("FEDERATED_TOKEN_FILE", str(tmp_path / "token")),
            ("AUTHORITY_HOST", "login.chinacloudapi.cn"),
        ):  # fmt: skip
            monkeypatch.setenv(f"AZURE_{name}", value)
        credential = azure("az://cont?account=account")._container.credential
        assert isinstance(credential, DefaultAzureCredential)
        workload = [one for one in credential.credentials if isinstance(one, WorkloadIdentityCredential)]
        assert [one._token_file_path for one in workload] == [str(tmp_path / "token")]

    def test_a_token_goes_over_tls_only(self) -> None:
        with pytest.raises(ConfigError, match="HTTPS"):
            azure("az://cont?account=account&endpoint=http://127.0.0.1:1/account")


class TestGcs:
    def test_an_endpoint_without_tls_is_an_emulator(self) -> None:
        assert isinstance(gcs_credentials("gs://bucket?endpoint=http://127.0.0.1:1"), AnonymousCredentials)
        fields = {"storageAPIEndpoint": "http://127.0.0.1:1"}
        assert isinstance(gcs_credentials("gs://bucket", credentials=fields), AnonymousCredentials)

    def test_a_service_account(self, account: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = write(tmp_path / "c", {"serviceaccount.json": json.dumps(account)})
        monkeypatch.setenv("SOURCE_GOOGLE_APPLICATION_CREDENTIALS", str(folder / "serviceaccount.json"))
        (tmp_path / "other.json").write_text(json.dumps(account))
        for found in (
            gcs_credentials(f"gs://bucket?credentials={tmp_path}"),
            gcs_credentials(f"gs://bucket?credentials={folder}"),
            gcs_credentials(f"gs://bucket?credentials={folder}/serviceaccount.json"),
            gcs_credentials("gs://bucket", variable_prefix="SOURCE_"),
            gcs_credentials("gs://bucket", credentials={"serviceaccount.json": json.dumps(account)}),
        ):
            assert isinstance(found, service_account.Credentials)
            assert found.service_account_email == account["client_email"]
            assert found.scopes == ["https://www.googleapis.com/auth/devstorage.read_write"]

    def test_the_order_of_the_variables(
        self, account: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("uri", "variable", "json", "source", "source-json"):
            (tmp_path / name).write_text(json.dumps(account | {"client_email": name}))

        def email(uri: str = "gs://bucket", prefix: str = "") -> str:
            return gcs_credentials(uri, variable_prefix=prefix).service_account_email

        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "variable"))
        assert email() == "variable"
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS_JSON", str(tmp_path / "json"))
        assert email() == "json"
        assert email(f"gs://bucket?credentials={tmp_path}/uri") == "uri"
        monkeypatch.setenv("SOURCE_GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "source"))
        assert (email(prefix="SOURCE_"), email()) == ("source", "json")
        monkeypatch.setenv("SOURCE_GOOGLE_APPLICATION_CREDENTIALS_JSON", str(tmp_path / "source-json"))
        assert (email(prefix="SOURCE_"), email()) == ("source-json", "json")

    def test_the_emulator_of_googles_libraries(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def endpoint(uri: str, **options: object) -> str:
            return open_store(parse_location(uri), **options).display.partition("endpoint=")[2]

        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:1")
        assert isinstance(gcs_credentials("gs://bucket"), AnonymousCredentials)
        assert endpoint("gs://bucket") == "http://127.0.0.1:1"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:2")
        assert endpoint("gs://bucket") == "http://127.0.0.1:2"
        assert endpoint("gs://bucket", credentials={"storageAPIEndpoint": "http://127.0.0.1:3"}) == "http://127.0.0.1:3"
        assert endpoint("gs://bucket?endpoint=http://127.0.0.1:4") == "http://127.0.0.1:4"
        for wrong in ("127.0.0.1:x", "ftp://127.0.0.1", "http://", "http://user@127.0.0.1"):
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", wrong)
            with pytest.raises(ConfigError, match="STORAGE_EMULATOR_HOST"):
                endpoint("gs://bucket")
        with pytest.raises(ConfigError, match="storageAPIEndpoint"):
            endpoint("gs://bucket", credentials={"storageAPIEndpoint": "127.0.0.1:x"})

    def test_the_endpoint_beside_the_document(self, account: dict[str, str], tmp_path: Path) -> None:
        fields = {"serviceaccount.json": json.dumps(account), "storageAPIEndpoint": "https://storage.example\n"}
        store = open_store(parse_location(f"gs://bucket?credentials={write(tmp_path / 'c', fields)}"))
        assert store.display == "gs://bucket?endpoint=https://storage.example"

    def test_an_external_account_reads_its_token_anew(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "c", {"credentialsConfig": json.dumps(EXTERNAL), "token": "first"})
        found = gcs_credentials(f"gs://bucket?credentials={folder}")
        assert isinstance(found, identity_pool.Credentials)
        assert found.retrieve_subject_token(None) == "first"
        (folder / "token").write_text("second")
        assert found.retrieve_subject_token(None) == "second"

    def test_an_external_account_as_gardener_writes_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        document = EXTERNAL | {
            "universe_domain": "googleapis.com",
            "credential_source": {"file": str(tmp_path / "c" / "token"), "format": {"type": "text"}},
            "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-"
            "/serviceAccounts/agent@project.iam.gserviceaccount.com:generateAccessToken",
        }
        fields = {"credentialsConfig": json.dumps(document), "token": "first", "projectID": "project"}
        folder = write(tmp_path / "c", fields)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "credentialsConfig"))
        found = gcs_credentials("gs://bucket")
        assert isinstance(found, identity_pool.Credentials)
        assert found.service_account_email == "agent@project.iam.gserviceaccount.com"
        assert found.retrieve_subject_token(None) == "first"

    def test_an_external_account_from_memory(self) -> None:
        fields = {"credentialsConfig": json.dumps(EXTERNAL), "token": "given"}
        found = gcs_credentials("gs://bucket", credentials=fields)
        assert isinstance(found, identity_pool.Credentials)
        assert found.retrieve_subject_token(None) == "given"

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"token_url": "https://evil.example/"}, "token_url"),
            ({"service_account_impersonation_url": "https://evil.example/"}, "impersonation"),
            ({"type": "authorized_user"}, "type"),
            ({"audience": None}, "lack audience"),
        ],
    )
    def test_what_an_external_account_must_not_do(self, changed: dict[str, object], named: str) -> None:
        fields = {"serviceaccount.json": json.dumps(EXTERNAL | changed), "token": "given"}
        with pytest.raises(ConfigError, match=named):
            gcs_credentials("gs://bucket", credentials=fields)

    def test_an_external_account_without_its_token(self) -> None:
        with pytest.raises(ConfigError, match="token"):
            gcs_credentials("gs://bucket", credentials={"credentialsConfig": json.dumps(EXTERNAL)})

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"token_uri": "https://evil.example/"}, "token_uri"),
            ({"private_key": "hunter2"}, "cannot be read"),
            ({"client_email": None}, "lack client_email"),
        ],
    )
    def test_bad_service_accounts(self, account: dict[str, str], changed: dict[str, object], named: str) -> None:
        with pytest.raises(ConfigError, match=named) as raised:
            gcs_credentials("gs://bucket", credentials={"serviceaccount.json": json.dumps(account | changed)})
        assert "hunter2" not in f"{raised.value}{raised.value.__cause__}"

    @pytest.mark.parametrize("content", ["hunter2", "[1]", "[" * 60000, '"hunter2"', "\udcff", "x" * 70000])
    def test_documents_that_are_none(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "serviceaccount.json").write_text(content, errors="surrogateescape")
        with pytest.raises(ConfigError, match=r"serviceaccount\.json") as raised:
            gcs_credentials(f"gs://bucket?credentials={tmp_path}")
        assert "hunter2" not in f"{raised.value}{raised.value.__cause__}"

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no such file"):
            gcs_credentials(f"gs://bucket?credentials={tmp_path}/gone")
        with pytest.raises(ConfigError, match=r"serviceaccount\.json"):
            gcs_credentials("gs://bucket", credentials={"other": "x"})

    def test_without_credentials_those_of_google_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("google.auth.default", lambda scopes: (AnonymousCredentials(), None))
        assert isinstance(gcs_credentials("gs://bucket"), AnonymousCredentials)

    def test_and_without_those_it_is_an_error(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(ConfigError, match="no credentials for Google"):
            gcs_credentials("gs://bucket")


def test_no_secret_is_shown_while_opening(account: dict[str, str]) -> None:
    from backupagent.clock import SYSTEM_CLOCK
    from backupagent.stores.opening import Opening

    opening = Opening(parse_location("az://cont"), SYSTEM_CLOCK, "", create=False, credentials=AZURE)
    assert KEY not in repr(opening)
