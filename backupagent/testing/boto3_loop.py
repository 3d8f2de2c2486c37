"""The copy that one writes first, as a baseline: for each object a GET, then a PUT.

Run as ``python -m backupagent.testing.boto3_loop SOURCE_CREDENTIALS SOURCE_BUCKET TARGET_CREDENTIALS
TARGET_BUCKET``; credentials are folders as the peer wants them.
"""

import sys
from pathlib import Path
from typing import Any, TypeAlias

import boto3
from botocore.config import Config

S3Client: TypeAlias = Any
"""boto3 makes its classes at run time; the package with their types is not among the dependencies."""


def connect(credentials: Path) -> S3Client:
    """Return a client for the service and the account that a folder of credential files names."""
    return boto3.client(
        "s3",
        endpoint_url=(credentials / "endpoint").read_text(),
        region_name=(credentials / "region").read_text(),
        aws_access_key_id=(credentials / "accessKeyID").read_text(),
        aws_secret_access_key=(credentials / "secretAccessKey").read_text(),
        config=Config(s3={"addressing_style": "path"}),
    )


def copy(source: S3Client, source_bucket: str, target: S3Client, target_bucket: str) -> None:
    """Copy every object of a bucket, one after the other, each whole in memory."""
    for page in source.get_paginator("list_objects_v2").paginate(Bucket=source_bucket):
        for item in page.get("Contents", ()):
            body = source.get_object(Bucket=source_bucket, Key=item["Key"])["Body"].read()
            target.put_object(Bucket=target_bucket, Key=item["Key"], Body=body)


def sizes(client: S3Client, bucket: str) -> dict[str, int]:
    """Return the size of every object of a bucket by its key."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}


def upload(client: S3Client, bucket: str, folder: Path, prefix: str) -> None:
    """Put every file of a folder into a bucket."""
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            client.put_object(Bucket=bucket, Key=prefix + path.name, Body=file)


def duplicate(client: S3Client, bucket: str, key: str, new_key: str) -> None:
    """Let the service copy an object within a bucket."""
    client.copy_object(Bucket=bucket, Key=new_key, CopySource={"Bucket": bucket, "Key": key})


def empty(client: S3Client, bucket: str) -> None:
    """Delete every object of a bucket."""
    for key in sizes(client, bucket):
        client.delete_object(Bucket=bucket, Key=key)


if __name__ == "__main__":
    source_folder, from_bucket, target_folder, to_bucket = sys.argv[1:]
    copy(connect(Path(source_folder)), from_bucket, connect(Path(target_folder)), to_bucket)
