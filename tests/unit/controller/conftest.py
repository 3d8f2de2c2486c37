"""Fixtures of the controller's tests."""

from pathlib import Path

import pytest
from garden_kube import GardenFlow


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GardenFlow:
    """A Shoot on seed-a, before anything has begun."""
    monkeypatch.setenv("HOME", str(tmp_path))  # what stores of the provider Local lie below
    return GardenFlow(tmp_path)
