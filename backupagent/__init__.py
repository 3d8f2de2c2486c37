"""backupagent: takes, moves, restores and proves etcd backups."""

__version__ = "0.1.0"
