"""Every error a person or a program may meet, in one tree.

    FlightmodeError
    ├── StoreError            FM1xx  etcd
    ├── PostgresError         FM2xx  the local PostgreSQL
    ├── FenceError            FM3xx  the process that holds Postgres
    ├── ConfigError           FM4xx  flightmode.toml and its files
    ├── InterfaceError        FM5xx  command line and REST
    ├── AgentError            FM6xx  what a node refuses to do, and why
    ├── ProxyError            FM7xx  the pool beside an application
    └── ProvisionError        FM8xx  bringing hosts to what flightmode.toml says

Each class answers three questions: whose fault (its branch), may I try again
(`retry`), and what now (`hint`, a command to type).  `code` is stable: scripts
may match on it.  `exit_status` follows sysexits.h where it has a word for it.
"""

from flightmode.errors.base import FlightmodeError
from flightmode.errors.within import (
    AgentError,
    DataInTheWay,
    DataModes,
    DataUnreadable,
    FenceError,
    FenceRefused,
    FenceUnreachable,
    NotAdoptable,
    PostgresCommandFailed,
    PostgresError,
    PostgresPortTaken,
    RecordUnreadable,
    ServerSilent,
    ServerUnwilling,
    SettingsRefused,
    SourceNotReady,
    StoreError,
    StoreRefused,
    StoreUnknown,
    SyncNamesUnproven,
)
from flightmode.errors.without import (
    AgentUnseen,
    AlreadyThere,
    BundleMissing,
    CertificateInvalid,
    CheckFailed,
    ConfigError,
    ConfigInvalid,
    ConfigMissing,
    FileMissing,
    FileUnsafe,
    HostKeyChanged,
    HostRefused,
    HostUnfit,
    HostUnreachable,
    InterfaceError,
    KeyUnusable,
    NodeUnnamed,
    NodeUnreachable,
    NotAllowed,
    NotConfirmed,
    NotNeeded,
    PortTaken,
    ProgramMissing,
    ProvisionError,
    ProxyError,
    ProxySettingsWrong,
    RehearsalFailed,
    ReplayDiffers,
    RequestOpen,
    RequestRefused,
    RequestUnfinished,
    RequestUnknown,
    RequestWrong,
    StepFailed,
    TakeOverFailed,
    Unforeseen,
    WrongAnswer,
)

__all__ = [
    "AgentError",
    "AgentUnseen",
    "AlreadyThere",
    "BundleMissing",
    "CertificateInvalid",
    "CheckFailed",
    "ConfigError",
    "ConfigInvalid",
    "ConfigMissing",
    "DataInTheWay",
    "DataModes",
    "DataUnreadable",
    "FenceError",
    "FenceRefused",
    "FenceUnreachable",
    "FileMissing",
    "FileUnsafe",
    "FlightmodeError",
    "HostKeyChanged",
    "HostRefused",
    "HostUnfit",
    "HostUnreachable",
    "InterfaceError",
    "KeyUnusable",
    "NodeUnnamed",
    "NodeUnreachable",
    "NotAdoptable",
    "NotAllowed",
    "NotConfirmed",
    "NotNeeded",
    "PortTaken",
    "PostgresCommandFailed",
    "PostgresError",
    "PostgresPortTaken",
    "ProgramMissing",
    "ProvisionError",
    "ProxyError",
    "ProxySettingsWrong",
    "RecordUnreadable",
    "RehearsalFailed",
    "ReplayDiffers",
    "RequestOpen",
    "RequestRefused",
    "RequestUnfinished",
    "RequestUnknown",
    "RequestWrong",
    "ServerSilent",
    "ServerUnwilling",
    "SettingsRefused",
    "SourceNotReady",
    "StepFailed",
    "StoreError",
    "StoreRefused",
    "StoreUnknown",
    "SyncNamesUnproven",
    "TakeOverFailed",
    "Unforeseen",
    "WrongAnswer",
    "every_error",
    "from_answer",
]


def every_error() -> tuple[type[FlightmodeError], ...]:
    """The whole tree, in the order of the codes."""

    def below(kind: type[FlightmodeError]) -> list[type[FlightmodeError]]:
        return [kind, *(each for child in kind.__subclasses__() for each in below(child))]

    return tuple(sorted(below(FlightmodeError), key=lambda kind: kind.code))


def from_answer(code: str, message: str, hint: str) -> FlightmodeError:
    """The error of that code, as another node told it."""
    kind = next((each for each in every_error() if each.code == code), FlightmodeError)
    failure = FlightmodeError.__new__(kind)
    FlightmodeError.__init__(failure, message, hint=hint)
    return failure
