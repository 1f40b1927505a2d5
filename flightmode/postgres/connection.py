"""Local connections: one that is kept for looking, and fresh ones for acts.

Every wait has an end.  A query that does not answer is left by shutting its socket down:
asking a hung server to cancel it would wait for the same server.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, LiteralString

import psycopg
from psycopg import AsyncConnection, sql

from flightmode.errors import ServerSilent, ServerUnwilling
from flightmode.postgres.settings import SUPERUSER, PostgresConfig

Connection = AsyncConnection[tuple[Any, ...]]

OPTIONS: Final = (
    "-c search_path=pg_catalog -c statement_timeout=0 -c lock_timeout=0 "
    "-c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 "
    "-c default_transaction_read_only=off -c synchronous_commit=local "
    "-c log_statement=none -c log_duration=off -c log_min_duration_statement=-1 "
    "-c log_min_duration_sample=-1 -c log_transaction_sample_rate=0 "
    "-c log_min_error_statement=panic "
    "-c auto_explain.log_min_duration=-1 -c pg_stat_statements.track=none -c pgaudit.log=none"
)
"""What a user may have set for everybody must not change what ours do.

`local`: our own statements (roles, slots) never wait for a standby; no client is told of them.
Nothing of ours is logged or counted: verifiers of passwords would stand there, and the looks
would drown what the user wants to see.  A setting of an extension that is not loaded is
without effect.
"""
CONNECT_S: Final = 2.0


async def open_local(config: PostgresConfig, *, within_s: float = CONNECT_S) -> Connection:
    """A connection over the Unix socket, by the identity of this process.

    Raises ServerUnwilling (it answers, and says no) or ServerSilent.
    """
    connecting = AsyncConnection.connect(
        host=str(config.socket_dir),
        port=config.port,
        user=SUPERUSER,
        dbname="postgres",
        application_name="flightmode",
        options=OPTIONS if config.pg_major < 17 else f"{OPTIONS} -c transaction_timeout=0",
        autocommit=True,
    )
    try:
        async with asyncio.timeout(within_s):
            return await connecting
    except TimeoutError:
        raise ServerSilent(f"Postgres did not answer within {within_s:g} s") from None
    except psycopg.OperationalError as error:
        raise ServerUnwilling(str(error).strip()) from None


@asynccontextmanager
async def local(
    config: PostgresConfig, *, within_s: float = CONNECT_S
) -> AsyncIterator[Connection]:
    """A fresh connection for one act."""
    connection = await open_local(config, within_s=within_s)
    try:
        yield connection
    finally:
        await connection.close()


async def fetch(
    connection: Connection,
    query: LiteralString | sql.Composed,
    values: tuple[Any, ...] = (),
    *,
    within_s: float | None,
) -> list[tuple[Any, ...]]:
    """The rows.  After a time-out the connection is unusable.

    Raises ServerSilent, or ServerUnwilling when the server ended the connection.
    """
    asking = asyncio.ensure_future(_rows(connection, query, values))
    try:
        await asyncio.wait({asking}, timeout=within_s)
        if not asking.done():
            raise ServerSilent(f"Postgres did not answer a query within {within_s} s")
        return asking.result()
    except psycopg.OperationalError as error:
        raise ServerUnwilling(str(error).strip()) from None
    finally:
        if not asking.done():
            abort(connection)
            asking.add_done_callback(_forget)


async def _rows(
    connection: Connection, query: LiteralString | sql.Composed, values: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(query, values or None)
    return await cursor.fetchall() if cursor.description else []


def abort(connection: Connection) -> None:
    """End the connection now.  May be repeated."""
    with suppress(psycopg.OperationalError, OSError), _wire(connection) as wire:
        # Not connected any more: then there is nothing to end.
        wire.shutdown(socket.SHUT_RDWR)


def _wire(connection: Connection) -> socket.socket:
    return socket.socket(fileno=os.dup(connection.fileno()))


def _forget(asking: "asyncio.Future[list[tuple[Any, ...]]]") -> None:
    """The error of an abandoned query was told when it was abandoned."""
    if not asking.cancelled():
        asking.exception()
