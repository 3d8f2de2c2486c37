"""Writes ``docs/stores.md``: ``python -m backupagent.cli.stores_page > docs/stores.md``."""

import json
from collections.abc import Iterable, Mapping, Sequence

from backupagent.stores.location import CHOICES, OPTIONS
from backupagent.stores.opening import SERVICES
from backupagent.stores.opening_s3 import ECS_VARIABLES, FIELDS
from backupagent.stores.peer import SCHEMES
from backupagent.stores.peer import SERVICES as SERVICE_OPTIONS

FORMS: Mapping[str, str] = {
    "s3": "s3://bucket/prefix?endpoint=https://host:9000&region=eu-1&path-style=true",
    "az": "az://container/prefix?account=name",
    "gs": "gs://bucket/prefix",
    "file": "file:///absolute/directory",
}

OPTION_MEANINGS: Mapping[str, str] = {
    "account": "storage account; else `storageAccount` of the credentials",
    "ca-file": "file or directory with the CAs to trust, instead of the usual ones",
    "credentials": "file or directory with the credentials; comes before every variable",
    "endpoint": "URL of the service, when it is not the provider's own",
    "path-style": "whether the bucket stands in the path of the URL or in its host; else the SDK decides",
    "region": "region of the bucket; else that of the credentials or of the SDK's environment",
    "request-checksums": "`when_supported` (default): what is written carries a CRC-32; `when_required`: an MD5, for "
    "services that know no other",
    "response-checksums": "passed on to the SDK; digests of ours do not need it",
    "service": "kind of S3 service, which decides where its credentials are and how it is addressed",
    "skip-verify": "`true`: certificates are not verified; a warning is logged",
    "storage-class": "storage class of what is written; one that cannot be read at once is refused",
}

OTHER_FIELDS: Mapping[str, Mapping[str, str]] = {
    "az": {
        "storageAccount": "storage account",
        "storageKey": "its key, base64; without credentials azure-identity finds a token",
        "domain": "domain of a sovereign cloud; default `blob.core.windows.net`",
    },
    "gs": {
        "serviceaccount.json": "document of type `service_account` or `external_account`",
        "credentialsConfig": "the same, by its other name",
        "token": "token of an external account, read anew whenever it is needed",
        "storageAPIEndpoint": "URL of the service",
    },
}

READ = ("s3:GetObject",)
LIST = ("s3:ListBucket",)
READ_VERSIONS = ("s3:GetObjectVersion", "s3:GetObjectVersionTagging")
LIST_VERSIONS = ("s3:GetBucketVersioning", "s3:ListBucketVersions")
WRITE = ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
LIST_UPLOADS = ("s3:ListBucketMultipartUploads",)
REMOVE_VERSIONS = ("s3:DeleteObjectVersion",)


def policy(bucket: str, in_bucket: Sequence[str], in_objects: Sequence[str]) -> str:
    """Return a policy of IAM that allows what is named and nothing else."""
    statements = [
        {"Effect": "Allow", "Action": list(in_bucket), "Resource": [f"arn:aws:s3:::{bucket}"]},
        {"Effect": "Allow", "Action": list(in_objects), "Resource": [f"arn:aws:s3:::{bucket}/*"]},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


def source_policy(bucket: str, *, versions: bool) -> str:
    """Return what a source needs."""
    return policy(bucket, LIST + LIST_VERSIONS * versions, READ + READ_VERSIONS * versions)


def target_policy(bucket: str, *, versions: bool) -> str:
    """Return what a target needs."""
    in_objects = READ + WRITE + (READ_VERSIONS + REMOVE_VERSIONS) * versions
    return policy(bucket, LIST + LIST_UPLOADS + LIST_VERSIONS * versions, in_objects)


_HEAD = """# Stores

Generated from the tables in the code by `python -m backupagent.cli.stores_page > docs/stores.md`; do not edit.

A store is one URI. It never holds a secret. Bucket, prefix and values are percent-encoded.
"""

_OTHER_SERVICES = """
`oss` is unproven: no OSS was at hand. Every other S3 service (Ceph, STACKIT, MinIO) is `s3://` with its endpoint.
Swift is reached by its S3 interface.
"""

_CREDENTIALS = """
## Where credentials come from

In this order: `?credentials=PATH`; the variable `<NAME>_APPLICATION_CREDENTIALS_JSON`, then
`<NAME>_APPLICATION_CREDENTIALS`, each the path of a JSON file or of a directory with one file for each field (of its
`*.json` files the first one counts); the SDK's own chain. For the source of `copy` the same variables with `SOURCE_`
before them come first. Secrets of Kubernetes are mounted as such directories.

The files are looked at every five seconds while a store is in use: when they change, the store goes on with what they
hold then. When the store denies access they are read again at once, and the call is made once more; denied again is
the end (exit 13). So keys can be rotated in the middle of a copy. Without files the SDK's chain is asked again.
"""

_VERSIONS = """
## Buckets of S3 that keep versions

Where versioning is on, with or without object lock, the oldest version of a snapshot counts, as with
etcd-backup-restore: neither writing over it nor a delete marker takes it away. A snapshot with a delete marker is left
out when its oldest version has the tag `x-etcd-snapshot-exclude=true`. Who may not ask whether versions are kept gets
the newest ones. What lies below `manifests/` is written again on purpose; there the newest counts.

To remove a snapshot means to remove all of its versions. What retention protects stays, and is an error (exit 14).
A snapshot that has to be copied again takes the place of its older versions, or is an error when they must stay.
A lifecycle rule for noncurrent versions below `manifests/` keeps such a bucket small.

## Azure and Google

Without a key or a document the SDKs' own chains give tokens: environment, workload identity, managed identity, the
command line tools. A token goes over TLS only. An endpoint of Google over plain HTTP is an emulator and gets no
credentials; `STORAGE_EMULATOR_HOST` names one where nothing else names an endpoint.

Where versions are kept the current one counts, as with etcd-backup-restore; retention keeps it from being replaced.
What is marked `x-etcd-snapshot-exclude=true`, by a tag on Azure and by metadata on Google, is not listed.

Google buckets with retention, a default hold, soft delete or versions keep, and bill, what is deleted. There an object
in parts goes into one resumable session instead of parts of its own, so that nothing of it stays; it uses one
connection. That is decided by the bucket's properties: without `storage.buckets.get` there are parts, and those that
the bucket does not let go are said in a warning. An upload that was killed is taken up again with the same service
account's key; with tokens alone it begins anew.

Rights: of Azure the role Storage Blob Data Reader for a source, Contributor for a target, and
`.../blobs/tags/read` where tags are to count; of Google `storage.objects.list` and `get` for a source, `create` and
`delete` as well and `storage.buckets.get` for a target.

## Rights on S3

The actions of IAM that are used, and no others; MinIO enforces these very documents in the tests.
"""


def page() -> str:
    """Return the page."""
    names = {
        scheme: [name for name in SCHEMES if SCHEMES[name] == scheme and name not in SERVICE_OPTIONS]
        for scheme in FORMS
    }
    forms = (
        (f"`{FORMS[scheme]}`", ", ".join(f"`{name}`" for name in names[scheme]), _variable(scheme)) for scheme in FORMS
    )
    services = (
        (f"`{name}`", f"`s3://...?service={option}`", _variable(option)) for name, option in SERVICE_OPTIONS.items()
    )
    options = (
        (
            f"`{name}`",
            ", ".join(f"`{scheme}`" for scheme in OPTIONS if name in OPTIONS[scheme]),
            meaning,
            _choices(name),
        )
        for name, meaning in OPTION_MEANINGS.items()
    )
    fields = [("s3", name, meaning) for name, meaning in FIELDS.items()]
    fields += [(scheme, name, meaning) for scheme, found in OTHER_FIELDS.items() for name, meaning in found.items()]
    policies = (
        ("A source", source_policy("BUCKET", versions=False)),
        ("A source that keeps versions", source_policy("BUCKET", versions=True)),
        ("A target", target_policy("BUCKET", versions=False)),
        ("A target that keeps versions", target_policy("BUCKET", versions=True)),
    )
    return "".join(
        (
            _HEAD,
            _table("URI", "provider names of etcdbrctl and etcd-druid", "credentials", rows=forms),
            "\nServices that speak S3 and have credentials of their own:\n",
            _table("provider name", "URI", "credentials", rows=services),
            _OTHER_SERVICES,
            "\n## Options of the URI\n",
            _table("option", "of", "meaning", "values", rows=options),
            _CREDENTIALS,
            "\nFields:\n",
            _table("of", "field", "meaning", rows=((f"`{of}`", f"`{name}`", meaning) for of, name, meaning in fields)),
            "\n`ecs` has no files but variables:\n",
            _table("variable", "is the field", rows=((f"`{n}`", f"`{field}`") for n, field in ECS_VARIABLES.items())),
            _VERSIONS,
            *(f"\n{title}:\n\n```json\n{document}\n```\n" for title, document in policies),
        )
    )


def _variable(name: str) -> str:
    service = SERVICES.get(name, "")
    if name == "ecs":
        return "variables, see below"
    return f"`{service}_APPLICATION_CREDENTIALS`" if service else "none"


def _choices(name: str) -> str:
    return ", ".join(f"`{choice}`" for choice in CHOICES.get(name, ()))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _table(*head: str, rows: Iterable[Iterable[str]]) -> str:
    return "\n" + _row(head) + _row("---" for _ in head) + "".join(_row(row) for row in rows)


if __name__ == "__main__":
    print(page(), end="")
