"""The one file that runs programs of Postgres."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from flightmode.errors import PostgresCommandFailed
from flightmode.postgres.settings import PostgresConfig

_SHOWN = 2000
_ENVIRONMENT = {
    "LC_ALL": "C",
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "PGCONNECT_TIMEOUT": "5",
}


async def run(config: PostgresConfig, argv: Sequence[str], *, quiet: bool = False) -> str:
    """Run it as the user of Postgres; what it prints.  Raises PostgresCommandFailed.

    Killed with everything it started when the task is cancelled.  No time limit: a copy takes
    as long as it takes.  `quiet`: a failure is told by an empty answer.
    """
    drops = os.geteuid() == 0
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            user=config.uid if drops else None,
            group=config.gid if drops else None,
            extra_groups=[] if drops else None,
        )
    except OSError as error:
        raise PostgresCommandFailed(f"{argv[0]}: {error.strerror}") from None
    try:
        output, complaint = await process.communicate()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            # It may have ended in the very moment.
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if process.returncode == 0:
        return output.decode(errors="replace")
    if quiet:
        return ""
    told = complaint.decode(errors="replace").strip()[-_SHOWN:]
    raise PostgresCommandFailed(
        f"{os.path.basename(argv[0])} ended with {process.returncode}: {told}"
    )


def run_now(argv: Sequence[str]) -> str:
    """Run a short one that only looks, as whoever we are; for commands of a person.

    Raises PostgresCommandFailed.
    """
    try:
        done = subprocess.run(
            argv, env=_ENVIRONMENT, cwd="/", capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PostgresCommandFailed(f"{argv[0]}: {error}") from None
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip()[:_SHOWN]
        raise PostgresCommandFailed(f"{' '.join(argv)}: {complaint}")
    return done.stdout.decode(errors="replace")
