"""From the URI and the peer's credentials to a Google Cloud Storage store.

Credentials may come from whoever owns a bucket, so what is in them may not send our requests elsewhere: the places
where tokens are asked for are the public ones, and the token of an external account comes from a file beside it.

Source:
    etcd-backup-restore, pkg/snapstore/gcs_snapstore.go, for the names of files and what is allowed in them.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import google.auth
from google.auth import identity_pool
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.oauth2 import service_account

from backupagent.errors import ConfigError
from backupagent.stores.credentials import MAX_SIZE
from backupagent.stores.gcs import GcsSettings, GcsStore, open_gcs
from backupagent.stores.gcs_requests import SCOPE
from backupagent.stores.opening import Opening

DOCUMENTS = ("serviceaccount.json", "credentialsConfig")
"""Names of the field with the document, in order."""

EMULATOR = "STORAGE_EMULATOR_HOST"
"""Variable of Google's libraries, which the peer heeds by them: ``host:port`` or a URL."""

_NEEDED: Mapping[str, tuple[str, ...]] = {
    "service_account": ("client_email", "private_key", "token_uri"),
    "external_account": ("audience", "subject_token_type", "token_url"),
}
_TAKEN = frozenset({
    "type", "project_id", "private_key_id", "client_id", "service_account_impersonation_url",
    *(name for names in _NEEDED.values() for name in names),
})  # fmt: skip
"""Fields that are passed on: none of the others, such as ``universe_domain``, changes where requests go."""

_TOKEN_URIS = ("https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token")
_STS = "https://sts.googleapis.com/v1/token"
_IMPERSONATION = re.compile(
    r"https://iamcredentials\.googleapis\.com/v1/projects/-/serviceAccounts/[^/:?#]+:generateAccessToken"
)


@dataclass(frozen=True)
class _Found:
    """Credentials as they were found.

    Attributes:
        document: JSON; None for the SDK's own chain.
        fields: What lies beside it; of an external account the token.
        token: File with that token, when there is one.
    """

    document: Mapping[str, Any] | None = field(repr=False)
    fields: Mapping[str, str] = field(repr=False)
    token: Path | None = None


@dataclass(frozen=True)
class _Token(identity_pool.SubjectTokenSupplier):
    """Gives the token of an external account; read anew each time, because it is rotated."""

    path: Path | None
    text: str = field(default="", repr=False)

    def get_subject_token(self, context: object, request: object) -> str:
        """Return the token."""
        del context, request
        return self.text if self.path is None else _read(self.path)


def open_location(opening: Opening) -> GcsStore:
    """Open a bucket; an endpoint over plain http is an emulator, which gets no credentials.

    The endpoint is ``?endpoint=``, else ``storageAPIEndpoint`` beside the credentials, else the emulator that Google's
    own libraries would use.

    Raises:
        ConfigError: the credentials cannot be used.
    """
    found = _find(opening)
    endpoint = opening.location.options.get("endpoint") or _endpoint(found)
    return open_gcs(
        GcsSettings(
            bucket=opening.location.bucket,
            credentials=AnonymousCredentials() if endpoint.startswith("http://") else _credentials(found),
            endpoint=endpoint,
            prefix=opening.location.prefix,
        )
    )


def _endpoint(found: _Found) -> str:
    named = found.fields.get("storageAPIEndpoint", "").strip()
    emulator = os.environ.get(EMULATOR, "")
    endpoint = named or (emulator if "://" in emulator or not emulator else f"http://{emulator}")
    try:
        url = urlsplit(endpoint)
        valid = not endpoint or (url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0)
    except ValueError:  # a port that is no number
        valid = False
    if not valid or "@" in endpoint:
        name = "storageAPIEndpoint in the credentials" if named else EMULATOR
        raise ConfigError(f"{name} is not of the form http[s]://HOST[:PORT]")
    return endpoint


def _find(opening: Opening) -> _Found:
    fields = opening.credentials
    if fields is not None:
        text = next((fields[name] for name in DOCUMENTS if fields.get(name)), "")
        if not text and "storageAPIEndpoint" not in fields:
            raise ConfigError(f"the credentials lack {DOCUMENTS[0]}")
        return _Found(_parse(text, DOCUMENTS[0]) if text else None, fields)
    path = opening.credentials_path("GOOGLE")
    if path is None:
        return _Found(None, {})
    if path.is_dir():
        named = [path / name for name in DOCUMENTS if (path / name).is_file()]
        path = next(iter([*named, *sorted(path.glob("*.json"))]), path / DOCUMENTS[0])
    endpoint, token = path.with_name("storageAPIEndpoint"), path.with_name("token")
    beside = {endpoint.name: _read(endpoint).strip()} if endpoint.is_file() else {}
    return _Found(_parse(_read(path), str(path)), beside, token if token.is_file() else None)


def _credentials(found: _Found) -> Credentials:
    document = found.document
    if document is None:
        try:
            credentials, _ = google.auth.default([SCOPE])
        except GoogleAuthError as error:
            raise ConfigError(
                "there are no credentials for Google Cloud Storage",
                hint="give ?credentials=PATH or GOOGLE_APPLICATION_CREDENTIALS, or log in with gcloud",
            ) from error
        found_credentials: Credentials = credentials
        return found_credentials
    makers = {"service_account": _service_account, "external_account": _external_account}
    kind = str(document.get("type"))
    if kind not in makers:
        raise ConfigError(f"the credentials are neither of type {' nor of '.join(makers)}")
    taken = {name: value for name, value in document.items() if name in _TAKEN and isinstance(value, str)}
    missing = [name for name in _NEEDED[kind] if not taken.get(name)]
    if missing:
        raise ConfigError(f"the credentials of type {kind} lack {', '.join(missing)}")
    try:
        return makers[kind](found, taken)
    except (ValueError, GoogleAuthError):
        # Not chained: the original may show the content.
        raise ConfigError(f"the credentials of type {kind} cannot be read") from None


def _service_account(_: _Found, document: Mapping[str, Any]) -> Credentials:
    if document["token_uri"] not in _TOKEN_URIS:
        raise ConfigError(f"token_uri in the credentials is not {_TOKEN_URIS[0]}")
    made: Credentials = service_account.Credentials.from_service_account_info(document, scopes=[SCOPE])
    return made


def _external_account(found: _Found, document: Mapping[str, Any]) -> Credentials:
    if document["token_url"] != _STS:
        raise ConfigError(f"token_url in the credentials is not {_STS}")
    impersonation = document.get("service_account_impersonation_url", "")
    if impersonation and not _IMPERSONATION.fullmatch(impersonation):
        raise ConfigError("service_account_impersonation_url in the credentials is not Google's")
    if found.token is None and not found.fields.get("token"):
        raise ConfigError("the credentials of an external account lack the file 'token' beside them")
    info = {**document, "subject_token_supplier": _Token(found.token, found.fields.get("token", ""))}
    made: Credentials = identity_pool.Credentials.from_info(info, scopes=[SCOPE])
    return made


def _parse(text: str, name: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        # Not chained: the original shows the content.
        raise ConfigError(f"cannot read credentials from {name}: it is not JSON") from None
    if not isinstance(document, dict):
        raise ConfigError(f"cannot read credentials from {name}: it is not a JSON object")
    return document


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
        if len(content) > MAX_SIZE:
            raise ConfigError(f"cannot read credentials from {path}: it is larger than {MAX_SIZE} bytes")
        return content.decode()
    except OSError as error:
        raise ConfigError(f"cannot read credentials from {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read credentials from {path}: it is not UTF-8") from None
