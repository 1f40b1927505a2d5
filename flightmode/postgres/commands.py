"""Argv of every program of Postgres that we run.  Pure; no password ever stands in one."""

from pathlib import Path

from psycopg.conninfo import make_conninfo

from flightmode.postgres.settings import REWIND, SUPERUSER, PostgresConfig, conninfo, slot_name


def postgres(config: PostgresConfig) -> tuple[str, ...]:
    """The postmaster."""
    return (str(config.bin_dir / "postgres"), "-D", str(config.data_dir))


def initdb(config: PostgresConfig, into: Path, password_file: Path) -> tuple[str, ...]:
    """A new cluster with checksums; nobody keeps the superuser's password: it enters locally."""
    return (
        str(config.bin_dir / "initdb"),
        f"--pgdata={into}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--data-checksums",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--auth-local=peer",
        "--auth-host=scram-sha-256",
    )


def setting(config: PostgresConfig, name: str) -> tuple[str, ...]:
    """What a server that is not running would have for it, from its files."""
    return (str(config.bin_dir / "postgres"), "-C", name, "-D", str(config.data_dir))


HEARD = ("-c", "lc_messages=C", "-c", "log_min_messages=warning")
"""What is wrong with a file is said in words that are known, whatever else is in it: bad lines are
told of when these are in force."""


def judging(config: PostgresConfig, directory: Path) -> tuple[str, ...]:
    """Fails where it would not start with the postgresql.conf in there.

    It needs no data: `-C` of a setting that is known without them ends before they are looked at
    (postmaster.c), and after all names and values have been.
    """
    return (str(config.bin_dir / "postgres"), "-C", "port", "-D", str(directory), *HEARD)


def controldata(config: PostgresConfig) -> tuple[str, ...]:
    return (str(config.bin_dir / "pg_controldata"), f"--pgdata={config.data_dir}")


def slot(config: PostgresConfig, member: str, verb: str) -> tuple[str, ...]:
    """`verb`: drop-slot or create-slot, of this node's slot on `member`."""
    return (
        str(config.bin_dir / "pg_receivewal"),
        f"--dbname={_of_a_copy(config, member)}",
        f"--slot={slot_name(config.name)}",
        f"--{verb}",
        "--no-password",
        *(("--if-not-exists",) if verb == "create-slot" else ()),
    )


def _of_a_copy(config: PostgresConfig, member: str) -> str:
    """Under a name that no commit waits for: what a copy has received is no standby's yet (I5).

    With a slot pg_basebackup reports what it has received as flushed, so under the member's name
    it would acknowledge commits (receivelog.c, reportFlushPosition).
    """
    return make_conninfo(conninfo(config, member), application_name=f"copy of {config.name}")


def basebackup(config: PostgresConfig, member: str, into: Path) -> tuple[str, ...]:
    """A copy of `member`, with the WAL it needs, held back by our slot."""
    return (
        str(config.bin_dir / "pg_basebackup"),
        f"--pgdata={into}",
        f"--dbname={_of_a_copy(config, member)}",
        f"--slot={slot_name(config.name)}",
        "--wal-method=stream",
        "--checkpoint=fast",
        "--no-password",
    )


def rewind(config: PostgresConfig, member: str) -> tuple[str, ...]:
    """Recovery of an uncleanly stopped target is done by pg_rewind itself."""
    return (
        str(config.bin_dir / "pg_rewind"),
        f"--target-pgdata={config.data_dir}",
        f"--source-server={conninfo(config, member, REWIND, dbname=SUPERUSER)}",
    )
