"""Starting the programs of a host."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path


async def spawn(
    argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None
) -> asyncio.subprocess.Process:
    """Start a program with no input, its output appended to `log`.

    It gets a session of its own: a Ctrl-C at the terminal is for the demo alone, and to
    PostgreSQL it would mean a fast shutdown.
    """
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=None if env is None else {**os.environ, **env},
            start_new_session=True,
        )
