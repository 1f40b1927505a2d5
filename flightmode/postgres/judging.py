"""Whether PostgreSQL takes the settings that are to be written, asked of itself beforehand.

One name that it does not know, and it takes up nothing of its files at a reload: neither whom to
follow nor for whom commits wait.  One value that it can't read, and it does not start.
"""

import asyncio
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from flightmode.errors import PostgresCommandFailed
from flightmode.postgres import commands, files
from flightmode.postgres.settings import PostgresConfig
from flightmode.postgres.subprocesses import run

WITHIN_S: Final = 10.0
"""Who waits for a disk that stalls is no job that others have to wait for."""
_SAID: Final = re.compile(r"^.*?(?:LOG|ERROR|FATAL):  (.*)$", re.MULTILINE)
_NO_NEWS: Final = ("skipping missing configuration file", "configuration file ")
_WHERE: Final = re.compile(r' in file "[^"]*" line \d+$')


async def refusals(config: PostgresConfig, conf_text: str) -> tuple[str, ...]:
    """What PostgreSQL has against this postgresql.conf, in its words; nothing: it takes it.

    Raises PostgresCommandFailed: it ended without a word, which is no judgement, or takes longer
    than WITHIN_S; OSError.
    """
    try:
        async with asyncio.timeout(WITHIN_S):
            return await _refusals(config, conf_text)
    except TimeoutError:
        told = f"{config.name}: PostgreSQL has not judged its settings in {WITHIN_S:g} s"
        raise PostgresCommandFailed(told) from None


async def _refusals(config: PostgresConfig, conf_text: str) -> tuple[str, ...]:
    directory = await asyncio.to_thread(_laid_out, config, conf_text)
    try:
        await run(config, commands.judging(config, directory))
    except PostgresCommandFailed as failure:
        found = told(failure.message)
        if not found:
            raise
        return found
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    return ()


def _laid_out(config: PostgresConfig, conf_text: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="judged.", dir=config.socket_dir))
    files.own(config, directory)
    files.write(config, directory / "postgresql.conf", conf_text)
    return directory


def told(complaint: str) -> tuple[str, ...]:
    """What is wrong, of all that PostgreSQL has printed."""
    found = [_WHERE.sub("", each) for each in _SAID.findall(complaint)]
    return tuple(each for each in found if not each.startswith(_NO_NEWS))


def in_files(rows: Iterable[Sequence[object]], waiting: Iterable[object]) -> tuple[str, ...]:
    """The same of a server that runs: of its files, without what only waits for a restart."""
    spared = set(waiting)
    # Of a setting that is in no file any more there is neither a name nor a place (guc-file.l).
    waits = 'parameter "{}" cannot be changed without restarting the server'
    removed = {waits.format(name) for name in spared}
    return tuple(
        f"{name}: {error} ({file}, line {line})" if name else f"{error} ({file}, line {line})"
        for file, line, name, error in rows
        if name not in spared and error not in removed
    )
