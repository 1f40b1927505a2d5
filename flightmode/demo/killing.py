"""Ending processes that do not want to end, and knowing that they did."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from flightmode.errors import RehearsalFailed


def kill_until_none(find: Callable[[], Iterable[int]], *, within_s: float = 5.0) -> None:
    """SIGKILL whatever `find` returns, again and again, until it returns nothing.

    All are stopped before the first is killed, so that no parent sees its child die first and
    does something about it.  Raises RehearsalFailed when some are left after `within_s`.
    """
    deadline_s = time.monotonic() + within_s
    while pids := set(find()):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                send(pid, number)
        if time.monotonic() > deadline_s:
            raise RehearsalFailed(f"these processes survive SIGKILL: {sorted(pids)}")
        time.sleep(0.005)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone by now."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (the state) on; none when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def started_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (proc(5), field 22); None if gone.

    With it a pid names one process for ever: no clock that is set can change it.
    """
    fields = stat(pid)
    return int(fields[19]) if fields else None


def alive(pid: int) -> bool:
    """Whether the process exists and can still do something; a zombie can not."""
    fields = stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def bearing(mark: str) -> set[int]:
    """The living processes with `mark` in their environment, and all that descend from them.

    PostgreSQL's processes write their title over their environment, hence the descendants.
    """
    found: set[int] = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() not in (directory / "environ").read_bytes():
                continue
            pid = int(directory.name)
            found.update({pid}, (one.pid for one in psutil.Process(pid).children(recursive=True)))
        except (PermissionError, FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
            continue
    return {pid for pid in found if alive(pid)}
