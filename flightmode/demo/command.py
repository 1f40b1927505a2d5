"""Carrying out the commands that build a lab: argv lists in, errors of ours out."""

import asyncio
import subprocess
from collections.abc import Iterable, Sequence

from flightmode.errors import RehearsalFailed

LIMIT_S = 20.0


def run(argv: Sequence[str], *, stdin: str = "") -> str:
    """Run a short command to its end and return its output.

    Raises RehearsalFailed with the command and its own words when it does not exit with 0.
    """
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RehearsalFailed(f"`{' '.join(argv)}`: {error}") from error
    if done.returncode != 0:
        raise RehearsalFailed(f"`{' '.join(argv)}`: {done.stderr.strip()}")
    return done.stdout


def run_all(commands: Iterable[Sequence[str]]) -> None:
    """Run commands one after the other; the first that fails ends it."""
    for argv in commands:
        run(argv)


async def run_beside(argv: Sequence[str]) -> None:
    """As `run`, while the event loop, and the clients in it, go on."""
    await asyncio.to_thread(run, argv)
