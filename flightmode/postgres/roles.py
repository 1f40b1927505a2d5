"""Our roles and slots on a primary; each only what its work needs."""

from pathlib import Path
from typing import LiteralString

from psycopg import sql

from flightmode.postgres import queries
from flightmode.postgres.connection import Connection
from flightmode.postgres.settings import (
    APPLICATION,
    MONITOR,
    REPLICATION,
    REWIND,
    PostgresConfig,
    slot_name,
)

_SECRETS = {
    REPLICATION: ("replication", "LOGIN REPLICATION"),
    REWIND: ("rewind", "LOGIN"),
    MONITOR: ("monitor", "LOGIN"),
    APPLICATION: ("app", "LOGIN"),
}
"""Role: the file of its password, its attributes."""


def password_file(config: PostgresConfig) -> str:
    """The password file for connections to the peers (manual, 34.16)."""
    roles = (REPLICATION, REWIND, MONITOR)
    return "".join(f"*:*:*:{role}:{_password(config, _SECRETS[role][0])}\n" for role in roles)


def _password(config: PostgresConfig, name: str) -> str:
    return Path(config.secrets_dir / name).read_text().strip()


async def make_roles(connection: Connection, config: PostgresConfig) -> None:
    """Make them, or set their passwords to what the files say; may be repeated.

    What is sent is the SCRAM verifier: a password must not stand in the server's log.
    """
    rows = await (await connection.execute(queries.ROLES, (list(_SECRETS),))).fetchall()
    there = {row[0] for row in rows}
    for role, (secret, attributes) in _SECRETS.items():
        password = _password(config, secret).encode()
        verifier = connection.pgconn.encrypt_password(password, role.encode(), b"scram-sha-256")
        verb: LiteralString = "ALTER" if role in there else "CREATE"
        statement = sql.SQL("{} ROLE {} {} PASSWORD {}").format(
            sql.SQL(verb),
            sql.Identifier(role),
            sql.SQL(_literal(attributes)),
            sql.Literal(verifier.decode()),
        )
        await connection.execute(statement)
    await connection.execute(queries.MONITOR_GRANT)
    for grant in queries.REWIND_GRANTS:
        await connection.execute(grant)


def _literal(attributes: str) -> LiteralString:
    """The attributes are ours, of the table above."""
    return "LOGIN REPLICATION" if "REPLICATION" in attributes else "LOGIN"


async def make_slots(connection: Connection, members: tuple[str, ...]) -> None:
    """Exactly one slot for each member; one that holds nothing any more is left to its owner."""
    rows = await (await connection.execute(queries.SLOTS)).fetchall()
    wanted = {slot_name(member) for member in members}
    for name, active, _ in rows:
        if name not in wanted and not active:
            await connection.execute(queries.DROP_SLOT, (name,))
    for name in sorted(wanted - {row[0] for row in rows}):
        await connection.execute(queries.CREATE_SLOT, (name,))
