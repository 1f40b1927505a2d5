"""What a fence promises: it is the parent of Postgres and stops it when its permission ends.

Intuition: whoever may be replaced must not go on.  The others wait until the permission of
a silent leader is over, so something has to end Postgres at that instant even when the
agent is dead, hung or cut off.  That something is not the agent.

Two implementations, one contract suite (tests/contract/test_fence.py): `client.py` speaks
to the real one, `memory.py` is one for the simulator.

Errors (flightmode/errors): FenceUnreachable, nothing is known of the outcome, try again;
FenceRefused, nothing was done, and `reason` says why.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flightmode.model.server import FenceView, Role


class Command(Protocol):
    """How to start the postmaster; what the Postgres hand's `configure` returns fits."""

    @property
    def argv(self) -> tuple[str, ...]:
        """The program's absolute path, and its arguments."""

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        """All of it: nothing is inherited."""

    @property
    def uid(self) -> int:
        """The fence starts processes of one user alone, and never as root."""

    @property
    def gid(self) -> int:
        """One of that user's groups."""

    @property
    def directory(self) -> Path:
        """Where it works: the data directory."""

    @property
    def log(self) -> Path:
        """Where its output is appended; that user must be able to write it."""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """Start Postgres.

    As a primary the permission for `term` MUST be granted BEFORE, or is by `deadline_s` (I1).
    """

    command: Command
    role: Role
    term: int
    deadline_s: float | None
    """A primary's permission; None: what was granted before (`extend`, `lift`) holds."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The postmaster has ended; some of its children may still live."""

    pid: int
    exit_code: int | None
    signal: int | None
    boottime_s: float


@dataclass(frozen=True, slots=True)
class TreeEmpty:
    """Nothing of Postgres is left."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """The permission has ended; a primary is being stopped."""

    term: int
    why: str
    """deadline | clock jump | void"""


FenceEvent = Exited | TreeEmpty | Fenced


@dataclass(frozen=True, slots=True)
class FenceReport:
    """Everything that a fence says of itself, for people; decisions need only `view`."""

    view: FenceView
    node: str
    version: str
    fence_pid: int
    fence_started_s: float
    pid: int | None
    """The postmaster's."""
    started_s: float | None
    start_ticks: int | None
    """/proc/PID/stat field 22: with the pid, the postmaster's identity."""
    verdict: str
    """none | armed | lifted | expired"""
    ended_by: str | None
    """Why the permission expired: deadline | clock jump | void"""
    mlocked: bool
    oom_protected: bool
    realtime: bool
    cgroup: bool
    port_cut: bool
    watchdog_timeout_s: int | None
    missing: tuple[str, ...]
    """What was asked for, or would be good, and could not be had."""
    last_exit: Exited | None
    subscribers: int
    """How many listen to its events."""
    heartbeats_to: tuple[str, ...]
    heartbeats_sent: int
    heartbeats_failed: int


class Fence(Protocol):
    """The local fence.  Every call takes at most a second."""

    async def start(self, request: StartRequest) -> int:
        """Start Postgres and return the postmaster's pid, once its program runs.

        Refused: already_running, remnants (something of an earlier Postgres lives: `kill`),
        older_term, no_permission, not_stopped, past_deadline, wrong_user, start_failed, leaving.
        """

    async def extend(self, term: int, deadline_s: float) -> None:
        """Permission to run a primary until `deadline_s`, which may move either way.

        Repeatable.  Refused: older_term; not_stopped (the last permission has ended and what ran
        under it lives); past_deadline (nothing is in force and this one is over already).
        """

    async def lift(self, term: int) -> None:
        """Permission without an end (I6).  Repeatable.  Refused: older_term, not_stopped."""

    async def set_role(self, role: Role, term: int) -> None:
        """The running standby is about to be promoted.  Repeatable.

        MUST be confirmed BEFORE the promotion: a standby is not stopped at a deadline.
        Refused: older_term, no_permission, not_running, still_primary (no way back but a restart).
        """

    async def stop(self, mode: str) -> None:
        """Ask the postmaster to end: smart, fast or immediate.  Does not wait.

        Source: Postgres manual, 19.5.  Refused: not_running."""

    async def void(self) -> None:
        """End the permission and whatever runs, now: SIGQUIT, after 2 s SIGKILL.  Repeatable."""

    async def kill(self) -> None:
        """SIGKILL for everything of Postgres, until nothing is left.  Repeatable, does not wait."""

    async def status(self) -> FenceView:
        """What decisions need."""

    async def report(self) -> FenceReport:
        """Everything, for people."""

    async def send_heartbeats(self, to: tuple[str, ...]) -> None:
        """Send the fence's own heartbeats to these numeric addresses ("10.0.0.2:8009") alone.

        Refused: no_key (it was started without one), bad_request (not numeric)."""

    def events(self) -> AsyncIterator[FenceEvent]:
        """What happens from now on.  What happened before is in `status`.

        Raises FenceUnreachable when the fence goes away."""
