"""Our roles and slots on a primary; each only what its work needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, LiteralString

from psycopg import sql

from flightmode.postgres import queries
from flightmode.postgres.connection import Connection, fetch
from flightmode.postgres.settings import (
    APPLICATION,
    MONITOR,
    REPLICATION,
    REWIND,
    PostgresConfig,
    slot_name,
)


@dataclass(frozen=True, slots=True)
class _Role:
    secret: str
    """The file of its password."""
    attributes: LiteralString


_ROLES: Final = {
    REPLICATION: _Role("replication", "LOGIN REPLICATION"),
    REWIND: _Role("rewind", "LOGIN"),
    MONITOR: _Role("monitor", "LOGIN"),
    APPLICATION: _Role("app", "LOGIN"),
}

_ACT_S: Final = 5.0

_REMARK: Final = "made by Flightmode"
"""The comment on a role that we made."""


def password_file(config: PostgresConfig) -> str:
    """The password file for connections to the peers (manual, 34.16)."""
    roles = (REPLICATION, REWIND, MONITOR)
    return "".join(f"*:*:*:{role}:{_password(config, _ROLES[role].secret)}\n" for role in roles)


def _password(config: PostgresConfig, name: str) -> str:
    return Path(config.secrets_dir / name).read_text().strip()


async def make_roles(connection: Connection, config: PostgresConfig) -> None:
    """Make them, or set their passwords to what the files say; may be repeated.

    What is sent is the SCRAM verifier: a password must not stand in the server's log.
    A role `app` that an adopted server brought along keeps its password: its clients know it.
    """
    rows = await fetch(connection, queries.ROLES, (list(_ROLES),), within_s=_ACT_S)
    there: dict[str, str] = dict(rows)
    for role, wanted in _ROLES.items():
        if role == APPLICATION and there.get(role, _REMARK) != _REMARK:
            continue
        password = _password(config, wanted.secret).encode()
        verifier = connection.pgconn.encrypt_password(password, role.encode(), b"scram-sha-256")
        statement = sql.SQL("{} ROLE {} {} PASSWORD {}").format(
            sql.SQL("ALTER" if role in there else "CREATE"),
            sql.Identifier(role),
            sql.SQL(wanted.attributes),
            sql.Literal(verifier.decode()),
        )
        await fetch(connection, statement, within_s=_ACT_S)
        if role not in there:
            remark = sql.SQL("COMMENT ON ROLE {} IS {}")
            comment = remark.format(sql.Identifier(role), sql.Literal(_REMARK))
            await fetch(connection, comment, within_s=_ACT_S)
    for grant in (queries.MONITOR_GRANT, *queries.REWIND_GRANTS):
        await fetch(connection, grant, within_s=_ACT_S)


async def make_slots(connection: Connection, members: tuple[str, ...]) -> None:
    """Exactly one slot for each member; one that holds nothing any more is left to its owner."""
    rows = await fetch(connection, queries.SLOTS, within_s=_ACT_S)
    wanted = {slot_name(member) for member in members}
    for name, active, _ in rows:
        if name not in wanted and not active:
            await fetch(connection, queries.DROP_SLOT, (name,), within_s=_ACT_S)
    for name in sorted(wanted - {row[0] for row in rows}):
        await fetch(connection, queries.CREATE_SLOT, (name,), within_s=_ACT_S)
