"""Each refusal and each trouble of the connection is the right class with a remedy."""

from typing import Any

import httpx2
import pytest

from backupagent.errors import (
    BackupAgentError,
    ConfigError,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeInvalid,
    KubeNotFound,
    KubeUnavailable,
)
from backupagent.kube.call import Call
from backupagent.kube.errors import LONGEST_MESSAGE, kube_error
from backupagent.kube.resources import SHOOTS
from backupagent.kube.watching import TooOld

CALL = Call("get", SHOOTS, "garden-dev", "demo")


def status(code: Any, message: str = "because", **more: Any) -> dict[str, Any]:
    return {"kind": "Status", "code": code, "message": message, **more}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (302, KubeError),
        (400, KubeInvalid),
        (401, KubeForbidden),
        (404, KubeNotFound),
        (405, KubeInvalid),
        (409, KubeConflict),
        (410, TooOld),
        (413, KubeInvalid),
        (422, KubeInvalid),
        (429, KubeUnavailable),
        (500, KubeUnavailable),
        (503, KubeUnavailable),
        (504, KubeUnavailable),
        (599, KubeUnavailable),
        ("odd", KubeUnavailable),
    ],
)
def test_codes(code: Any, kind: type[KubeError]) -> None:
    error = kube_error(status(code), CALL)
    assert type(error) is kind
    assert error.message == "get shoots garden-dev/demo: because"
    assert error.hint


@pytest.mark.parametrize(
    ("refused", "rule"),
    [
        (
            'update resource "shoots/binding" in API group "a.example" in the namespace "p": RBAC: role "x" not found',
            'apiGroups: ["a.example"], resources: ["shoots/binding"], verbs: ["update"] in namespace p',
        ),
        (
            'list resource "nodes" in API group "" at the cluster scope',
            'apiGroups: [""], resources: ["nodes"], verbs: ["list"] for the whole cluster',
        ),
    ],
)
def test_the_missing_rule_is_the_one_that_the_server_names(refused: str, rule: str) -> None:
    error = kube_error(status(403, f'it is forbidden: User "bob" cannot {refused}'), CALL)
    assert type(error) is KubeForbidden
    assert error.hint == f"ask for a role with the rule that is missing: {rule}"


def test_a_refusal_by_admission_is_not_about_roles() -> None:
    error = kube_error(status(403, 'shoots "demo" is forbidden: seed "b" is not ready'), CALL)
    assert type(error) is KubeInvalid


def test_a_missing_kind_differs_from_a_missing_object() -> None:
    missing_object = kube_error(status(404, 'shoots "demo" not found', details={"name": "demo"}), CALL)
    missing_kind = kube_error(status(404, "404 page not found"), CALL)
    assert "no shoots of core.gardener.cloud/v1beta1" in missing_kind.hint
    assert missing_object.hint == KubeNotFound.default_hint


@pytest.mark.parametrize(
    ("cause", "kind", "text"),
    [
        (httpx2.ConnectError("[Errno 111] Connection refused"), KubeUnavailable, "Connection refused"),
        (httpx2.ConnectTimeout("timed out"), KubeUnavailable, "no answer in time: timed out"),
        (httpx2.ReadTimeout(""), KubeUnavailable, "no answer in time: ReadTimeout"),
        (httpx2.RemoteProtocolError("Server disconnected"), KubeUnavailable, "Server disconnected"),
        (FileNotFoundError(2, "No such file", "/plugin"), ConfigError, "credentials cannot be had"),
        (ValueError("no JSON"), ConfigError, "credentials cannot be had"),
    ],
)
def test_trouble_on_the_way(cause: Exception, kind: type[BackupAgentError], text: str) -> None:
    error = kube_error(cause, CALL)
    assert type(error) is kind
    assert text in error.message


def test_a_foreign_certificate_is_told() -> None:
    error = kube_error(httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), CALL)
    assert "certificate-authority" in error.hint


def test_a_token_in_an_error_is_not_shown() -> None:
    header = httpx2.LocalProtocolError("Illegal header value b'Bearer s3cr3t\\n'")
    plugin = ValueError("plugin said: token=s3cr3t")
    for error in (kube_error(header, CALL), kube_error(plugin, CALL), kube_error(status(500, "token: s3cr3t"), CALL)):
        assert "s3cr3t" not in f"{error}{error.hint}"


def test_a_message_is_one_line_of_bounded_length() -> None:
    error = kube_error(status(422, "first\nsecond " + "x" * 5000), CALL)
    assert "\n" not in error.message
    assert len(error.message) < LONGEST_MESSAGE + 100
