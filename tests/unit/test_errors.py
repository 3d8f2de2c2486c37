"""The tree of errors: what its docstring draws, what scripts rely on, what an operator reads."""

import inspect
import re

import pytest

from backupagent import errors
from backupagent.cli.failure import error_classes
from backupagent.errors import BackupAgentError, EtcdError, IntegrityError, PartialFailure, StoreError

CLASSES = error_classes()

EXIT_CODES = {
    "ConfigError": 2,
    "StoreError": 10,
    "ObjectNotFound": 11,
    "ObjectExists": 12,
    "AccessDenied": 13,
    "ObjectLocked": 14,
    "StoreUnavailable": 15,
    "ObjectChanged": 16,
    "IntegrityError": 20,
    "ChecksumMismatch": 21,
    "TruncatedObject": 22,
    "BadSnapshotName": 23,
    "RevisionGap": 24,
    "EmptySource": 25,
    "ConflictingDeltas": 26,
    "NameMismatch": 27,
    "TrailerMissing": 28,
    "MalformedContent": 29,
    "EtcdError": 30,
    "EtcdUnavailable": 31,
    "RevisionCompacted": 32,
    "DataDirInvalid": 33,
    "DataDirNotEmpty": 34,
    "NoSpace": 35,
    "PartialFailure": 40,
    "FinalSnapshotMissing": 41,
    "NotEqual": 42,
    "PreflightFailed": 43,
    "MigrationFailed": 44,
    "KubeError": 50,
    "KubeUnavailable": 51,
    "KubeForbidden": 52,
    "KubeNotFound": 53,
    "KubeConflict": 54,
    "KubeInvalid": 55,
    "Cancelled": 130,
}
"""Scripts rely on these: a code may be added, none may change."""


FIRST_LEVEL = 7
"""Column of the names right under the base."""


def drawn_tree() -> list[tuple[str, str, int, int, bool]]:
    """Read name, parent, exit code, HTTP status and retryable from the drawing in the module's docstring."""
    rows = []
    parents = {0: "BackupAgentError"}
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr] # it has one
        match = re.match(r"\s*(?P<stem>[│ ]*)[├└]─ (?P<name>\w+) +(?P<exit>\d+) +(?P<http>\d+)(?P<note>.*)", line)
        if match:
            depth = 1 if match.start("name") > FIRST_LEVEL else 0
            parents[depth + 1] = match["name"]
            rows.append(
                (match["name"], parents[depth], int(match["exit"]), int(match["http"]), "retryable" in match["note"])
            )
    return rows


def test_the_drawing_shows_exactly_the_classes() -> None:
    real = [
        (error.__name__, error.__mro__[1].__name__, error.exit_code, error.http_status, error.retryable)
        for error in CLASSES[1:]
    ]
    assert sorted(drawn_tree()) == sorted(real)


def test_exit_codes_never_change() -> None:
    assert {error.__name__: error.exit_code for error in CLASSES[1:]} == EXIT_CODES


def test_each_class_has_an_exit_code_of_its_own() -> None:
    codes = [error.exit_code for error in CLASSES]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_each_class_says_what_it_means_and_what_to_do(error: type[BackupAgentError]) -> None:
    assert error.__doc__
    assert error.__doc__ != error.__mro__[1].__doc__
    if error not in {BackupAgentError, PartialFailure}:
        assert error.default_hint
    assert 100 <= error.http_status < 600


def test_only_what_may_pass_by_itself_is_retryable() -> None:
    assert {error.__name__ for error in CLASSES if error.retryable} == {
        "StoreUnavailable",
        "TruncatedObject",
        "EtcdUnavailable",
        "KubeUnavailable",
        "KubeConflict",
    }


def test_a_store_error_names_call_object_and_store() -> None:
    error = errors.AccessDenied("403", op="read", key="v2/x", store="s3://bucket", retry_after_s=3.0)
    assert str(error) == error.message == "read 'v2/x' in s3://bucket: 403"
    assert (error.op, error.key, error.store, error.cause) == ("read", "v2/x", "s3://bucket", "403")
    assert (error.reason, error.retry_after_s) == ("AccessDenied", 3.0)
    assert str(StoreError("no", op="list")) == "list '': no"


def test_an_integrity_error_names_its_object() -> None:
    error = IntegrityError("is odd", key="v2/x")
    assert (str(error), error.key, error.cause) == ("v2/x: is odd", "v2/x", "is odd")


def test_an_etcd_error_names_its_endpoint() -> None:
    assert str(EtcdError("no leader", endpoint="127.0.0.1:2379")) == "etcd 127.0.0.1:2379: no leader"
    assert str(EtcdError("no leader")) == "etcd: no leader"


def test_a_hint_of_its_own_replaces_the_usual_one() -> None:
    assert errors.NotEqual("x").hint == errors.NotEqual.default_hint
    assert errors.NotEqual("x", hint="look").hint == "look"
    assert errors.NotEqual("x", hint="").hint == ""


def test_a_partial_failure_keeps_every_error() -> None:
    first, second = errors.ObjectNotFound("gone", op="read", key="a"), errors.NotEqual("differ")
    error = PartialFailure("2 of 5 failed", [first, second])
    assert error.errors == (first, second)
    assert (error.summary, error.hint) == ("2 of 5 failed", first.hint)
    assert str(error) == "2 of 5 failed; read 'a': gone; differ"
    assert PartialFailure("x", [first], hint="mine").hint == "mine"
