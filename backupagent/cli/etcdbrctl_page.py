"""Writes ``docs/etcdbrctl.md``: ``python -m backupagent.cli.etcdbrctl_page > docs/etcdbrctl.md``."""

from collections.abc import Iterable

from backupagent.cli.etcdbrctl_flags import COMMANDS, OTHER_COMMANDS
from backupagent.cli.etcdbrctl_settings import ON_MISSING_FINAL, PASSWORD_FILE
from backupagent.cli.pflag import Flag, Use
from backupagent.stores.peer import PROVIDER_NAMES

_PROVIDERS = ", ".join(
    f"`{name}`" + f" ({', '.join(f'`{other}`' for other in others)})" * bool(others)
    for name, others in PROVIDER_NAMES.items()
)

_HEAD = f"""# etcdbrctl

Generated from the tables in `backupagent/cli/` by
`python -m backupagent.cli.etcdbrctl_page > docs/etcdbrctl.md`; do not edit.

`etcdbrctl` takes the commands and flags of etcd-backup-restore (debd95b), by the rules of pflag, and does the work of
`backupagent`: etcd-druid's Pods run it unchanged, by the image alone. Every flag of the commands below is known. It is
*honoured*; or *accepted*, because what it adjusts does not exist here; or *refused*, because to pass over it would do
something else than was asked for. A refused flag may still be given with its default or, if it is a bool, as false.

Exit status 0 is success. A command line that cannot be read ends with 1, as with the peer; every other failure with the
exit code of its reason ([errors.md](errors.md)). Report or reason are also written to `/dev/termination-log`, or to
the path in `TERMINATION_LOG`: at most 4096 bytes of JSON, without lists and with cut texts where it would be more.

Variables are the peer's: `STORAGE_CONTAINER`, `SOURCE_STORAGE_CONTAINER`, `(SOURCE_)AWS_APPLICATION_CREDENTIALS`,
`(SOURCE_)AZURE_APPLICATION_CREDENTIALS` (each also with `_JSON` behind it, which comes first),
`(SOURCE_)GOOGLE_APPLICATION_CREDENTIALS`, `HOME` for `Local`, `POD_NAME`, `POD_NAMESPACE`, `ETCD_CONF`.

Providers: {_PROVIDERS}.
`OSS` goes by its S3 interface and is unproven. `Swift` is refused with exit code 2: it is reached by its S3 interface.
Their credentials, fields and variables: [stores.md](stores.md).
"""

_SAFER = (
    (
        "copy",
        "no final snapshot appears in time",
        "copies what is there, exit 0",
        "exit 41",
        f"`{ON_MISSING_FINAL}=copy`",
    ),
    ("copy", "the source is empty", "exit 0: the new etcd begins empty", "exit 25", "none"),
    ("copy", "objects are damaged", "copies them, exit 0", "copies the others, exit 20 to 29, or 40", "none"),
    ("copy", "the newest full lacks deltas", "copies what there is, exit 0", "exit 24", "none"),
    (
        "copy",
        "the target has an object of that name",
        "skips it whatever it holds",
        "skips it when it is the same, else copies it again",
        "none",
    ),
    (
        "copy",
        "the source has no credentials of its own, the target has",
        "the SDK's own chain",
        "exit 2: they are not the source's",
        "set `SOURCE_..._APPLICATION_CREDENTIALS`",
    ),
    (
        "copy",
        "`--max-backup-age` is over for everything",
        "copies nothing, exit 0",
        "copies the newest full with its deltas",
        "`--max-backups-to-copy=0` copies nothing",
    ),
    ("copy, restore", "no provider is named", "`Local`", "exit 2", "`--storage-provider=Local`"),
    ("restore", "there is nothing to restore", "exit 0 without a data directory", "exit 25", "none"),
    ("restore", "keys of deltas have leases", "keys lose them and stay for ever", "leases are made anew", "none"),
    ("restore", "it fails", "leaves a half-made directory", "leaves nothing", "none"),
    ("server", "the data directory is invalid", "deletes it", "moves it aside and restores", "none"),
    (
        "server",
        "`--compression-policy=lzw`",
        "writes lzw",
        "exit 2; lzw is read, not written",
        "`--compression-policy=gzip`",
    ),
    ("server", "`--schedule` has `@every` or a time zone", "takes it", "exit 2: five fields, UTC", "none"),
    ("server", "etcd asks for a password", "`--etcd-password`", "exit 2", f"`{PASSWORD_FILE}=FILE`"),
    (
        "server",
        "`https://` with a certificate that is not trusted",
        "connects by default",
        "does not",
        "`--cacert=FILE`",
    ),
    (
        "all",
        "a word that belongs to no flag, as in `--wait-for-final-snapshot false`",
        "passes over it",
        "exit 1",
        "`--wait-for-final-snapshot=false`",
    ),
    ("all", "a prefix that begins with `/`", "keys begin with it", "exit 2", "none"),
    ("all", "a negative duration", "reads it", "exit 1", "none"),
)
"""Command, occasion, what the peer does, what we do, and how to get the peer's behaviour."""


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _table(*head: str, rows: Iterable[Iterable[str]]) -> str:
    return "\n" + _row(head) + _row("---" for _ in head) + "".join(_row(row) for row in rows)


def _name(flag: Flag) -> str:
    return f"`-{flag.short}, --{flag.name}`" if flag.short else f"`--{flag.name}`"


def _default(flag: Flag) -> str:
    return f"`{flag.default}`" if flag.default else ""


def _command(command: str, flags: Iterable[Flag]) -> str:
    by_use = {use: [flag for flag in flags if flag.use is use] for use in Use}
    parts = [f"\n## {command}\n"]
    parts.append("\nHonoured:\n")
    honoured = ((_name(flag), flag.kind.value, _default(flag)) for flag in by_use[Use.HONOURED])
    parts.append(_table("flag", "type", "default", rows=honoured))
    for title, use in (("Accepted, without meaning here", Use.IDLE), ("Refused", Use.REFUSED)):
        if by_use[use]:
            rows = ((_name(flag), flag.kind.value, _default(flag), flag.note) for flag in by_use[use])
            parts += [f"\n{title}:\n", _table("flag", "type", "default", "because", rows=rows)]
    return "".join(parts)


def page() -> str:
    """Return the page."""
    safer = _table("command", "when", "the peer", "here", "the peer's behaviour by", rows=_SAFER)
    others = _table("command", "instead", rows=((f"`{name}`", note) for name, note in OTHER_COMMANDS.items()))
    return "".join(
        (
            _HEAD,
            "\n## Where it is safer than the peer\n",
            safer,
            *(_command(name, flags) for name, flags in COMMANDS.items()),
            "\n## Not in this version\n\nThese commands of the peer end with exit code 2.\n",
            others,
        )
    )


if __name__ == "__main__":
    print(page(), end="")
