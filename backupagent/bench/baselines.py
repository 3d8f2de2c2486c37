"""What anybody would do without a tool: the floor of a restore, and the loop that one writes first."""

from backupagent.bench.contender import Contender

# The same bytes to the same disk, once, and on it: nothing that makes a data dir can be faster.
COPY_AND_FSYNC = Contender(
    name="cp+fsync",
    kind="restore",
    program="sh",
    arguments=("-ec", 'mkdir -p "$2"; cp "$1" "$2/db"; sync "$2/db"', "sh", "{full_path}", "{data_dir}"),
)

BOTO3_LOOP = Contender(
    name="boto3-loop",
    kind="copy",
    program="{python}",
    arguments=(
        "-m", "backupagent.testing.boto3_loop", "{source_credentials}", "{source_bucket}",
        "{target_credentials}", "{target_bucket}",
    ),
)  # fmt: skip
