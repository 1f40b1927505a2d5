"""Making a data directory: new, as a copy of a peer's, or rewound to a peer's history.

Each can be repeated after it was cut off anywhere: a copy is made beside and put in its
place by a rename, a rewind is marked as begun.  What was there before a copy is kept under
another name: it may hold WAL that nobody else has (I10).
"""

import asyncio
import secrets
import time
from pathlib import Path

import psycopg

from flightmode.errors import DataInTheWay, PostgresCommandFailed, PostgresError, SourceNotReady
from flightmode.postgres import commands, files, queries
from flightmode.postgres.connection import fetch
from flightmode.postgres.settings import REWIND, SIGNAL, SUPERUSER, PostgresConfig, conninfo
from flightmode.postgres.subprocesses import run

_SOURCE_READY_S = 30.0
_ANSWER_S = 5.0
_POLL_S = 0.05


async def initdb(config: PostgresConfig) -> None:
    """A new cluster at `data_dir`.  Raises DataInTheWay, PostgresCommandFailed."""
    if not await asyncio.to_thread(files.is_empty, config.data_dir):
        text = f"{config.data_dir} is not empty; nothing was changed"
        raise DataInTheWay(text, hint=f"flightmode adoptable {config.data_dir}")
    beside = _beside(config, "initdb")
    password = config.socket_dir / "initdb.password"
    await asyncio.to_thread(files.fresh_directory, config, beside)
    await asyncio.to_thread(files.write, config, password, secrets.token_urlsafe(32))
    try:
        await run(config, commands.initdb(config, beside, password))
    finally:
        await asyncio.to_thread(files.remove, password)
    await asyncio.to_thread(_put_in_place, config, beside)


async def clone(config: PostgresConfig, member: str) -> None:
    """A copy of `member` at `data_dir`, ready to start as its standby."""
    beside = _beside(config, "clone")
    await asyncio.to_thread(files.fresh_directory, config, beside)
    # The slot may be lost, and then holds nothing: a new one begins at what the copy needs.
    await run(config, commands.slot(config, member, "drop-slot"), quiet=True)
    await run(config, commands.slot(config, member, "create-slot"))
    await run(config, commands.basebackup(config, member, beside))
    await asyncio.to_thread(files.write, config, beside / SIGNAL, "")
    await asyncio.to_thread(files.remove, beside / files.UNFINISHED)
    await asyncio.to_thread(_put_in_place, config, beside)


async def rewind(config: PostgresConfig, member: str) -> None:
    """Back to where this directory parted from `member`'s history, and on as its standby."""
    await _source_ready(config, member)
    marker = config.data_dir / files.UNFINISHED
    await asyncio.to_thread(files.write, config, marker, "rewind")
    await run(config, commands.rewind(config, member))
    await asyncio.to_thread(files.write, config, config.data_dir / SIGNAL, "")
    await asyncio.to_thread(files.remove, marker)


async def _source_ready(config: PostgresConfig, member: str) -> None:
    """Wait until the source's control file tells its new timeline, which pg_rewind compares.

    A promoted server writes it with its next checkpoint; `prepare` on the source asks for one.
    """
    until_s = time.monotonic() + _SOURCE_READY_S
    where = conninfo(config, member, REWIND, dbname=SUPERUSER)
    while time.monotonic() < until_s:
        try:
            async with await psycopg.AsyncConnection.connect(where, autocommit=True) as source:
                told, written = (await fetch(source, queries.TIMELINES, within_s=_ANSWER_S))[0]
        except (psycopg.OperationalError, PostgresError) as error:
            raise SourceNotReady(f"{member} can't be reached to compare: {error}") from None
        if told == written:
            return
        await asyncio.sleep(_POLL_S)
    raise SourceNotReady(f"{member} has written no checkpoint since it was promoted")


def _beside(config: PostgresConfig, what: str) -> Path:
    return config.data_dir.with_name(f"{config.data_dir.name}.{what}")


def _put_in_place(config: PostgresConfig, beside: Path) -> None:
    """Rename, and keep what was there (I10)."""
    data_dir = config.data_dir
    if files.is_empty(data_dir):
        if data_dir.exists():
            data_dir.rmdir()
    else:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        data_dir.rename(data_dir.with_name(f"{data_dir.name}.old-{stamp}"))
    beside.rename(data_dir)
    files.sync_directory(data_dir.parent)


__all__ = ["PostgresCommandFailed", "clone", "initdb", "rewind"]
