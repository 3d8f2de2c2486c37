"""What a user can decide: one frozen dataclass per command or theme.

Flags, environment variables (``BACKUPAGENT_<OPTION>``) and help texts are derived from the fields; precedence is
flag, then environment, then the default here. A new option is one new field.
"""

from backupagent.settings.operations import (
    BenchKind,
    BenchSettings,
    CopySettings,
    DemoPlay,
    DemoSettings,
    DemoStore,
    DoctorSettings,
    EtcdSettings,
    GcSettings,
    LeasePolicy,
    ListSettings,
    OnMissingFinal,
    OutputFormat,
    ProgressStyle,
    ReportingSettings,
    RestoreSettings,
    SnapshotChoice,
    SnapshotSettings,
    TransferSettings,
    VerifyMode,
    VerifySettings,
)
from backupagent.settings.option import PARSERS, option
from backupagent.settings.services import (
    ApiAuth,
    ControllerSettings,
    KubeSettings,
    MigrateKind,
    MigrateSettings,
    MigrationsSettings,
    ServerSettings,
)

__all__ = [
    "PARSERS",
    "ApiAuth",
    "BenchKind",
    "BenchSettings",
    "ControllerSettings",
    "CopySettings",
    "DemoPlay",
    "DemoSettings",
    "DemoStore",
    "DoctorSettings",
    "EtcdSettings",
    "GcSettings",
    "KubeSettings",
    "LeasePolicy",
    "ListSettings",
    "MigrateKind",
    "MigrateSettings",
    "MigrationsSettings",
    "OnMissingFinal",
    "OutputFormat",
    "ProgressStyle",
    "ReportingSettings",
    "RestoreSettings",
    "ServerSettings",
    "SnapshotChoice",
    "SnapshotSettings",
    "TransferSettings",
    "VerifyMode",
    "VerifySettings",
    "option",
]
