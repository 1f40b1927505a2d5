"""Errors of a node: its store, its PostgreSQL, its fence, its agent."""

from flightmode.errors.base import FlightmodeError

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
    hint = "flightmode init --help"


class DataModes(PostgresError):
    """The data directory can be entered by others than its owner; Postgres would refuse it."""

    code = "FM204"
    exit_status = 77
    hint = "flightmode check"


class PostgresPortTaken(PostgresError):
    """Another program listens where Postgres should."""

    code = "FM205"
    hint = "ss -ltnp"


class SettingsRefused(PostgresError):
    """PostgreSQL does not take a setting, and would not start with it; what it had before stays."""

    code = "FM206"
    exit_status = 78
    hint = "flightmode config apply"


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


# --------------------------------------------------------------------- FM6xx agent


class AgentError(FlightmodeError):
    """What a node refuses to do, and why."""

    code = "FM600"
    exit_status = 70
    hint = "flightmode why"
