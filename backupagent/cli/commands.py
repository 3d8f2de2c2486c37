"""The table of commands. A new command is one entry here, its settings, and a function in wiring."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from backupagent import settings
from backupagent.cancel import Cancel
from backupagent.cli import text, text_care
from backupagent.cli.document import Document
from backupagent.cli.failure import exit_code_of
from backupagent.errors import Cancelled
from backupagent.progress import Progress


class Report(Protocol):
    """What every command's report can do."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of the JSON document."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a command came to.

    Attributes:
        report: What it reports; None when it printed by itself.
        exit_code: Exit status.
    """

    report: Report | None
    exit_code: int = 0


Runner = Callable[[Any, Progress, Cancel], Outcome]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: On the command line.
        help: First sentence: what it does; the rest: what to know before using it.
        example: A line to copy.
        settings: Class of its settings, from which its options are derived.
        run: Does it.
        show: Makes its report readable; None when it prints by itself and so takes no reporting options.
    """

    name: str
    help: str
    example: str
    settings: type
    run: Runner
    show: Callable[[Any], Document] | None

    @property
    def reports(self) -> bool:
        """Whether it returns a report, and so takes the reporting options."""
        return self.show is not None


def _snapshot(options: settings.SnapshotSettings, progress: Progress, cancel: Cancel) -> Outcome:
    from backupagent import wiring  # noqa: PLC0415 - stores and codecs, which a help page does not need

    return Outcome(wiring.run_snapshot(options, progress, cancel))


def _copy(options: settings.CopySettings, progress: Progress, cancel: Cancel) -> Outcome:
    from backupagent import wiring  # noqa: PLC0415 - stores and codecs, which a help page does not need

    if not options.follow:
        return Outcome(wiring.run_copy(options, progress, cancel))
    report = wiring.run_follow(options, progress, cancel)
    if report.problems:
        return Outcome(report, exit_code_of(problem.reason for problem in report.problems))
    return Outcome(report, 0 if report.in_step else Cancelled.exit_code)


def _restore(options: settings.RestoreSettings, progress: Progress, cancel: Cancel) -> Outcome:
    from backupagent import wiring  # noqa: PLC0415 - stores and codecs, which a help page does not need

    return Outcome(wiring.run_restore(options, progress, cancel))


def _list(options: settings.ListSettings, progress: Progress, cancel: Cancel) -> Outcome:
    from backupagent import wiring  # noqa: PLC0415 - as above

    return Outcome(wiring.run_list(options, progress, cancel))


def _verify(options: settings.VerifySettings, progress: Progress, cancel: Cancel) -> Outcome:
    from backupagent import wiring  # noqa: PLC0415 - as above

    report = wiring.run_verify(options, progress, cancel)
    return Outcome(report, 0 if report.ok else exit_code_of(problem.reason for problem in report.problems))


def _gc(options: settings.GcSettings, progress: Progress, cancel: Cancel) -> Outcome:
    from backupagent import wiring  # noqa: PLC0415 - as above

    return Outcome(wiring.run_gc(options, progress, cancel))


def _doctor(options: settings.DoctorSettings, progress: Progress, cancel: Cancel) -> Outcome:
    from backupagent import wiring  # noqa: PLC0415 - as above

    report = wiring.run_doctor(options, progress, cancel)
    return Outcome(report, next((exit_code_of([check.reason]) for check in report.checks if check.reason), 0))


def _server(options: settings.ServerSettings, _progress: Progress, cancel: Cancel) -> Outcome:
    from backupagent.server.run import run_server  # noqa: PLC0415 - aiohttp, which a help page does not need

    return Outcome(None, run_server(options, cancel))


def _controller(options: settings.ControllerSettings, _progress: Progress, cancel: Cancel) -> Outcome:
    from backupagent.controller.run import run_controller  # noqa: PLC0415 - Kubernetes, which a help page does not need
    from backupagent.logs import log_to  # noqa: PLC0415 - as above

    log_to()
    return Outcome(None, run_controller(options, cancel))


def _migrate(options: settings.MigrateSettings, progress: Progress, cancel: Cancel) -> Outcome:
    from backupagent.controller.trigger import run_migrate  # noqa: PLC0415 - Kubernetes, which a help page does not need

    outcome = run_migrate(options, progress, cancel)
    return Outcome(outcome, exit_code_of([outcome.reason]) if outcome.reason else 0)


def _show_migrate(report: Any) -> Document:  # noqa: ANN401 - as in Command
    from backupagent.cli.text_migrations import migrate  # noqa: PLC0415 - as above

    return migrate(report)


def _migrations(options: settings.MigrationsSettings, _progress: Progress, _cancel: Cancel) -> Outcome:
    from backupagent.controller.overview import run_migrations  # noqa: PLC0415 - as above

    return Outcome(run_migrations(options))


def _show_migrations(report: Any) -> Document:  # noqa: ANN401 - as in Command
    from backupagent.cli.text_migrations import migrations  # noqa: PLC0415 - as above

    return migrations(report)


def _demo(options: settings.DemoSettings, _progress: Progress, cancel: Cancel) -> Outcome:
    if options.play is settings.DemoPlay.MIGRATION:
        from backupagent.bench.demo_migration import run_migration_demo  # noqa: PLC0415 - as below, and Kubernetes

        return Outcome(None, run_migration_demo(objects=options.objects, keep=options.keep, cancel=cancel))
    from backupagent.bench.demo import run_demo  # noqa: PLC0415 - servers and all operations

    code = run_demo(store=options.store.value, objects=options.objects, keep=options.keep, cancel=cancel)
    return Outcome(None, code)


def _bench(options: settings.BenchSettings, _progress: Progress, _cancel: Cancel) -> Outcome:
    from backupagent import bench  # noqa: PLC0415 - servers and all operations

    code = bench.run(
        options.kind.value, options.only, options.runs, options.json, check=options.check, quick=options.quick
    )
    return Outcome(None, code)


_TABLE = (
    Command(
        name="snapshot",
        help="Take a full or delta snapshot of a running etcd.\n\n"
        "The bytes go straight from etcd into the store, hashed and compressed on their way; nothing touches the "
        "disk. The object becomes visible when it is whole.",
        example="backupagent snapshot --store s3://bucket/main --endpoints http://etcd:2379",
        settings=settings.SnapshotSettings,
        run=_snapshot,
        show=text.snapshot,
    ),
    Command(
        name="copy",
        help="Copy snapshots to another store.\n\n"
        "The newest chain is moved first. What is already at the target is skipped when it is proven to be the same; "
        "a copy that was killed goes on where it stopped when it is run again.\n\n"
        "With --follow it goes on until a signal comes, and ends with 0 when the target is in step with the source, "
        "else with 130, or with the code of a problem that is still there.",
        example="backupagent copy --source s3://old/main --target s3://new/main",
        settings=settings.CopySettings,
        run=_copy,
        show=text.copy,
    ),
    Command(
        name="restore",
        help="Make an etcd data directory from a store, and prove it.\n\n"
        "The newest chain is read; no etcd runs meanwhile. The directory appears under its name when everything in it "
        "is written and checked; the report gives its revision and HashKV.",
        example="backupagent restore --store s3://bucket/main --data-dir /var/lib/etcd/new",
        settings=settings.RestoreSettings,
        run=_restore,
        show=text.restore,
    ),
    Command(
        name="list",
        help="List a store's chains, with gaps and restorable revisions.\n\n"
        "Only names are read. `verify` reads the contents.",
        example="backupagent list --store file:///backups/main",
        settings=settings.ListSettings,
        run=_list,
        show=text.listing,
    ),
    Command(
        name="verify",
        help="Read a store's snapshots and say which chains can be restored.\n\n"
        "Ends with 0 when there is no problem, else with the exit code of the problem, or 40 when there are several "
        "kinds.",
        example="backupagent verify --store s3://bucket/main --newest-chain-only",
        settings=settings.VerifySettings,
        run=_verify,
        show=text.verification,
    ),
    Command(
        name="doctor",
        help="Check stores before they are used.\n\n"
        "Reach, permissions, clock, retention, chains, leftovers, how long a copy will take. A source is "
        "listed and read, nothing else. In a target a small object and a few parts are written below "
        "PREFIX/manifests/ and removed again, unless something keeps them. Ends with 0 when no check failed, else with "
        "the exit code of the first that did: what comes after it may follow from it.",
        example="backupagent doctor --source s3://old/main --target s3://new/main",
        settings=settings.DoctorSettings,
        run=_doctor,
        show=text_care.checks,
    ),
    Command(
        name="gc",
        help="Remove what is left of uploads that did not come to their end.\n\n"
        "Snapshots and manifests are never touched. What is younger than --older-than stays: a copy may still be at "
        "work on it. Snapshots that are too old are not removed by this version.",
        example="backupagent gc --store s3://bucket/main --incomplete --dry-run",
        settings=settings.GcSettings,
        run=_gc,
        show=text_care.collection,
    ),
    Command(
        name="server",
        help="Be the sidecar of one etcd member.\n\n"
        "Before etcd starts, its data directory is checked and restored when it is missing or invalid; while it runs, "
        "full and delta snapshots go into the store. Speaks the protocol of etcd-wrapper.",
        example="backupagent server --store s3://bucket/main --data-dir /data --host ::1",
        settings=settings.ServerSettings,
        run=_server,
        show=None,
    ),
    Command(
        name="controller",
        help="Watch Shoots that migrate, and say whether everything arrived.\n\n"
        "It looks at objects and buckets, changes neither, and tells what it finds as Events on the Shoot, in a "
        "ConfigMap beside it, and as metrics. It keeps no state: it may be stopped and started at any time.",
        example="backupagent controller --seed-kubeconfig seed-a=a.yaml,seed-b=b.yaml",
        settings=settings.ControllerSettings,
        run=_controller,
        show=None,
    ),
    Command(
        name="migrate",
        help="Move a Shoot's control plane to another Seed, and follow it.\n\n"
        "Refuses when something that the move needs is missing, binds the Shoot to the Seed, and shows every step "
        "until the controller has compared the new etcd with the old one. The API server decides who may: it takes "
        "`update` on shoots/binding.",
        example="backupagent migrate shoot garden-dev/demo --to seed-b",
        settings=settings.MigrateSettings,
        run=_migrate,
        show=_show_migrate,
    ),
    Command(
        name="migrations",
        help="List migrations that run or have run, or one with its steps.",
        example="backupagent migrations garden-dev/demo",
        settings=settings.MigrationsSettings,
        run=_migrations,
        show=_show_migrations,
    ),
    Command(
        name="demo",
        help="Take, move, restore and compare a real etcd on this machine.",
        example="backupagent demo --store minio --keep /tmp/demo",
        settings=settings.DemoSettings,
        run=_demo,
        show=None,
    ),
    Command(
        name="bench",
        help="Measure restores or copies, beside the peers that are on PATH.",
        example="backupagent bench restore --runs 5 --json restore.json",
        settings=settings.BenchSettings,
        run=_bench,
        show=None,
    ),
)

COMMANDS = {command.name: command for command in _TABLE}
"""Every command by its name, in the order of the help page."""
