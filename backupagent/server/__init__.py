"""The sidecar: initialization before etcd starts, backups while it runs, one small HTTP interface."""
