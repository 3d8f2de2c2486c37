"""Fixtures for all tests: binaries of real servers, clean environment, disarmed failpoints."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from backupagent import failpoints
from backupagent.testing import servers

settings.register_profile("pr", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("nightly", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "pr"))

PREFIXES = (
    "ALICLOUD_", "AWS_", "AZURE_", "BACKUPAGENT_", "CLOUDSDK_", "ECS_", "GOOGLE_", "OPENSHIFT_", "SOURCE_",
)  # fmt: skip
"""Of variables that name credentials and options."""

MAY_BE_MISSING = {"etcd-3.4"}
"""Servers whose absence is a skip even under ``--require=all`` (DESIGN 10)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        default="",
        help="'all': a test that lacks a server fails instead of being skipped",
    )
    parser.addoption("--long", action="store_true", help="also the tests that take many minutes, marked 'long'")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests, unless they are asked for."""
    if config.getoption("--long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No CA bundle, proxy, credential, option or terminal of the developer's shell reaches a test."""
    for name in list(os.environ):
        if name.endswith("_CA_BUNDLE") or name.lower().endswith("_proxy") or name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    yield
    failpoints.arm("")


@pytest.fixture(scope="session")
def server_binary(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Find the binary of a real server; skip, or under ``--require=all`` fail, when it is missing."""

    def find(name: str) -> Path:
        try:
            return servers.require(name)
        except servers.ServerMissing as error:
            if request.config.getoption("--require") == "all" and name not in MAY_BE_MISSING:
                pytest.fail(f"--require=all: {error}")
            pytest.skip(str(error))

    return find
