"""Every error a person or a program may meet, in one tree.

    FlightmodeError
    ├── StoreError            FM1xx  etcd
    ├── PostgresError         FM2xx  the local PostgreSQL
    ├── FenceError            FM3xx  the process that holds Postgres
    ├── ConfigError           FM4xx  flightmode.toml and its files
    ├── InterfaceError        FM5xx  command line and REST
    ├── AgentError            FM6xx  what a node refuses to do, and why
    └── ProxyError            FM7xx  the pool beside an application

Each class answers three questions: whose fault (its branch), may I try again
(`retry`), and what now (`hint`, a command to type).  `code` is stable: scripts
may match on it.  `exit_status` follows sysexits.h where it has a word for it.
"""

from typing import ClassVar


class FlightmodeError(Exception):
    """Base of all errors that Flightmode raises on purpose."""

    code: ClassVar[str] = "FM000"
    exit_status: ClassVar[int] = 70
    retry: ClassVar[bool] = False
    hint: ClassVar[str] = "flightmode logs"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint_text = self.hint if hint is None else hint

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


# --------------------------------------------------------------------- FM1xx store


class StoreError(FlightmodeError):
    """Something about the store (etcd)."""

    code = "FM100"
    exit_status = 69
    hint = "flightmode status"


class StoreUnknown(StoreError):
    """The outcome is unknown: a time-out, no leader, a broken connection.

    The request may have been carried out, may be carried out later, or never.
    Nothing follows from it (S1): whoever gets this waits or asks again.
    """

    code = "FM101"
    retry = True
    hint = "flightmode status"


class StoreRefused(StoreUnknown):
    """TLS: etcd's certificate is not ours to trust, or etcd does not trust ours.

    A kind of unknown (nothing follows from it), but trying again won't help.
    """

    code = "FM102"
    exit_status = 77
    retry = False
    hint = "flightmode check"


class RecordUnreadable(StoreError):
    """A record in the store, or a line of a journal, is not what this version understands."""

    code = "FM110"
    exit_status = 65
    hint = "flightmode --version"


# --------------------------------------------------------------------- FM2xx Postgres


class PostgresError(FlightmodeError):
    """Something about the local PostgreSQL."""

    code = "FM200"
    exit_status = 75
    hint = "flightmode logs --postgres"


class PostgresCommandFailed(PostgresError):
    """A program of Postgres (initdb, pg_basebackup, pg_rewind, …) ended with an error."""

    code = "FM201"
    hint = "flightmode logs --postgres"


class DataUnreadable(PostgresError):
    """The data directory is not one, or its control file can't be read."""

    code = "FM202"
    exit_status = 74
    hint = "flightmode check"


class DataInTheWay(PostgresError):
    """A new database was to be made where something is already."""

    code = "FM203"
    exit_status = 73
    hint = "flightmode init --adopt DATA_DIR"


class DataModes(PostgresError):
    """The data directory can be entered by others than its owner; Postgres would refuse it."""

    code = "FM204"
    exit_status = 77
    hint = "chmod 700 DATA_DIR"


class PostgresPortTaken(PostgresError):
    """Another program listens where Postgres should."""

    code = "FM205"
    hint = "ss -ltnp"


class ServerSilent(PostgresError):
    """Postgres runs, or seems to, and did not answer in time."""

    code = "FM210"
    retry = True


class ServerUnwilling(PostgresError):
    """Postgres answered, and refused: it is starting up, shutting down, or full."""

    code = "FM211"
    retry = True


class SyncNamesUnproven(PostgresError):
    """A setting was written and could not be shown to be in force."""

    code = "FM212"
    retry = True


class SourceNotReady(PostgresError):
    """The node to copy or rewind from can't be used for that now."""

    code = "FM213"
    retry = True


class NotAdoptable(PostgresError):
    """An existing data directory can't be run safely as it is; the message says why."""

    code = "FM220"
    exit_status = 65
    hint = "flightmode init --help"


# --------------------------------------------------------------------- FM3xx fence


class FenceError(FlightmodeError):
    """Something about the fence, the process that is the parent of Postgres."""

    code = "FM300"
    exit_status = 69
    hint = "flightmode status"


class FenceUnreachable(FenceError):
    """The fence did not answer: what was asked for may or may not have been done."""

    code = "FM301"
    retry = True
    hint = "systemctl status flightmode-fence"


class FenceRefused(FenceError):
    """The fence did not do what was asked; `reason` is stable, for programs."""

    code = "FM302"
    exit_status = 77
    hint = "flightmode why"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


# --------------------------------------------------------------------- FM4xx configuration


class ConfigError(FlightmodeError):
    """flightmode.toml, or a file it names, is not right."""

    code = "FM400"
    exit_status = 78
    hint = "flightmode check"


class ConfigMissing(ConfigError):
    """There is no flightmode.toml where it was looked for, or it can't be read."""

    code = "FM401"
    exit_status = 66
    hint = "flightmode init --help"


class ConfigInvalid(ConfigError):
    """flightmode.toml holds mistakes; the message lists all of them."""

    code = "FM402"
    hint = "flightmode check"

    def __init__(self, name: str, problems: tuple[str, ...]) -> None:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__("\n  ".join((f"{name} has {count}:", *problems)))
        self.problems = problems


class FileUnsafe(ConfigError):
    """A key or a password can be read by others than its owner."""

    code = "FM410"
    exit_status = 77
    hint = "chmod 600 FILE"


class FileMissing(ConfigError):
    """A certificate, key or password that flightmode.toml points to is not there."""

    code = "FM411"
    exit_status = 66
    hint = "flightmode init --help"


class AlreadyThere(ConfigError):
    """`flightmode init` never overwrites what it finds."""

    code = "FM403"
    exit_status = 73
    hint = "flightmode init --help"


class CertificateInvalid(ConfigError):
    """A certificate has expired, does not fit its key, or is not signed by the cluster's CA."""

    code = "FM412"
    hint = "flightmode init --renew"


# --------------------------------------------------------------------- FM5xx interfaces


class InterfaceError(FlightmodeError):
    """A request of a person or a program that can't be served as asked."""

    code = "FM500"
    exit_status = 64
    hint = "flightmode --help"


class RehearsalFailed(InterfaceError):
    """The demo could not build its hosts, or could not damage them as it should."""

    code = "FM580"
    exit_status = 71
    hint = "./dev clean"


class NotAllowed(InterfaceError):
    """To change something, show a certificate of the cluster or its token."""

    code = "FM501"
    exit_status = 77
    hint = "flightmode check"


class RequestWrong(InterfaceError):
    """The request names no such node, or lacks something."""

    code = "FM502"
    hint = "flightmode status"


class RequestOpen(InterfaceError):
    """Another request of that kind is not finished yet."""

    code = "FM503"
    exit_status = 75
    retry = True
    hint = "flightmode status"


class RequestUnknown(InterfaceError):
    """No request of that id is open or was the last of its kind."""

    code = "FM504"
    exit_status = 69
    hint = "flightmode status"


class RequestRefused(InterfaceError):
    """The cluster could not do what was asked for; the message says why."""

    code = "FM505"
    exit_status = 1
    hint = "flightmode why"


class RequestUnfinished(InterfaceError):
    """It was asked for, and has not ended in the time that was waited; it may still be done."""

    code = "FM506"
    exit_status = 75
    retry = True
    hint = "flightmode status"


class AgentUnseen(InterfaceError):
    """The agent runs and has not looked at its node yet, or its loop stands still."""

    code = "FM510"
    exit_status = 69
    retry = True
    hint = "flightmode logs"


class PortTaken(InterfaceError):
    """The agent's API can't listen where flightmode.toml says."""

    code = "FM511"
    exit_status = 69
    hint = "ss -ltnp"


class NodeUnreachable(InterfaceError):
    """No node answered, or the one that was named did not."""

    code = "FM520"
    exit_status = 69
    retry = True
    hint = "flightmode check"


class WrongAnswer(InterfaceError):
    """Something answers where a node's API should, and it is not one."""

    code = "FM521"
    exit_status = 76
    hint = "flightmode check"


class NodeUnnamed(InterfaceError):
    """A command needs to know which node it is about."""

    code = "FM522"
    hint = "flightmode status"


class NotConfirmed(InterfaceError):
    """The question was not answered with the word that was asked for; nothing was done."""

    code = "FM523"
    exit_status = 1
    hint = "flightmode status"


class NotNeeded(InterfaceError):
    """The cluster is well enough to do it without loss; nothing was done."""

    code = "FM524"
    exit_status = 1
    hint = "flightmode switchover"


class ProgramMissing(InterfaceError):
    """A program that Flightmode starts is not installed."""

    code = "FM525"
    exit_status = 69
    hint = "flightmode check"


class CheckFailed(InterfaceError):
    """`flightmode check` found something that has to be put right first."""

    code = "FM526"
    exit_status = 78
    hint = "flightmode check"


class ReplayDiffers(InterfaceError):
    """Today's rules decide differently from those that wrote the journal."""

    code = "FM527"
    exit_status = 1
    hint = "flightmode replay --help"


# --------------------------------------------------------------------- FM6xx agent


class AgentError(FlightmodeError):
    """What a node refuses to do, and why."""

    code = "FM600"
    exit_status = 70
    hint = "flightmode why"


# --------------------------------------------------------------------- FM7xx proxy


class ProxyError(FlightmodeError):
    """The pool beside an application."""

    code = "FM700"
    exit_status = 70
    hint = "flightmode proxy check"


class ProxySettingsWrong(ProxyError):
    """A file that [proxy] names is not what the data path can use: users, certificate, key."""

    code = "FM701"
    exit_status = 78


# --------------------------------------------------------------------- all of them


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
