"""Measured runs beside the peers that are on PATH, and the demo."""

from backupagent.bench.runner import run

__all__ = ["run"]
