"""Other people's tools, one row for each thing that they do; they must be on PATH.

Source of flags and variables: etcd-backup-restore, cmd/ and pkg/snapstore/ at debd95b.
"""

from backupagent.bench.contender import Contender

_ETCDBRCTL_VERSION = r'Version: ([^"\s]+)'

ETCDBRCTL_RESTORE = Contender(
    name="etcdbrctl",
    kind="restore",
    program="etcdbrctl",
    arguments=(
        "restore", "--storage-provider=Local", "--store-container=.", "--data-dir={data_dir}",
        "--restoration-temp-snapshots-dir={scratch}/restoration", "--snapstore-temp-directory={scratch}",
    ),
    # Its Local store lies under HOME/<container>/<prefix>/v2.
    environment={"HOME": "{store_dir}"},
    version_arguments=("-v",),
    version_pattern=_ETCDBRCTL_VERSION,
)  # fmt: skip

ETCDBRCTL_COPY = Contender(
    name="etcdbrctl",
    kind="copy",
    program="etcdbrctl",
    arguments=(
        "copy", "--snapstore-temp-directory={scratch}", "--source-snapstore-temp-directory={scratch}",
        "--source-storage-provider=S3", "--source-store-container={source_bucket}", "--source-store-prefix={prefix}",
        "--storage-provider=S3", "--store-container={target_bucket}", "--store-prefix={prefix}",
    ),
    # Folders with the files accessKeyID, secretAccessKey, region, endpoint and s3ForcePathStyle.
    environment={
        "HOME": "{scratch}",
        "SOURCE_AWS_APPLICATION_CREDENTIALS": "{source_credentials}",
        "AWS_APPLICATION_CREDENTIALS": "{target_credentials}",
    },
    version_arguments=("-v",),
    version_pattern=_ETCDBRCTL_VERSION,
)  # fmt: skip

RCLONE_COPY = Contender(
    name="rclone",
    kind="copy",
    program="rclone",
    arguments=(
        "copy", "--config=", "--s3-no-check-bucket", "--transfers=16", "--s3-upload-concurrency=8",
        "source:{source_bucket}/{prefix}", "target:{target_bucket}/{prefix}",
    ),
    environment={
        "HOME": "{scratch}",
        **{
            f"RCLONE_CONFIG_{role.upper()}_{name}": value
            for role in ("source", "target")
            for name, value in (
                ("TYPE", "s3"),
                ("PROVIDER", "Minio"),
                ("ENDPOINT", f"{{{role}_endpoint}}"),
                ("REGION", "{region}"),
                ("ACCESS_KEY_ID", f"{{{role}_access_key}}"),
                ("SECRET_ACCESS_KEY", f"{{{role}_secret_key}}"),
            )
        },
    },
    version_arguments=("version",),
    version_pattern=r"rclone v?(\S+)",
)  # fmt: skip
"""Tuned: the best of a few trials on this link (reference measurement: 28.2 s as it comes, 28.6 s tuned)."""

S5CMD_COPY = Contender(
    name="s5cmd",
    kind="copy",
    program="s5cmd",
    arguments=(
        "--endpoint-url={source_endpoint}", "--log=error", "cp", "s3://{source_bucket}/{prefix}/*",
        "s3://{target_bucket}/{prefix}/",
    ),
    environment={
        "HOME": "{scratch}",
        "AWS_REGION": "{region}",
        "AWS_ACCESS_KEY_ID": "{source_access_key}",
        "AWS_SECRET_ACCESS_KEY": "{source_secret_key}",
    },
    version_arguments=("version",),
    version_pattern=r"(v\S+)",
)  # fmt: skip
"""Copies within one service only, by the service itself."""
