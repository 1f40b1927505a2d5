"""Every verb of the system: a closed union of values.

Each carries the term it was decided in; the executor (`agent/act.py`) checks its
precondition again before carrying it out, and each may be repeated safely.
Order written in capitals is part of the contract.
"""

from dataclasses import dataclass

from flightmode.model.cluster import ClusterState, HistoryEntry, Request
from flightmode.model.member import Member
from flightmode.model.server import Role


@dataclass(frozen=True, slots=True)
class SwapState:
    """Compare-and-swap the `state` key: the one act by which roles change (I4)."""

    purpose: str
    """renew | create | claim | degrade | add | hand over | withdraw | hand back | switch over |
    take up | take back | pause | resume"""
    expected_revision: int
    state: ClusterState
    history: HistoryEntry | None = None


@dataclass(frozen=True, slots=True)
class Publish:
    """Write what this node says of itself."""

    member: Member


@dataclass(frozen=True, slots=True)
class FinishRequest:
    """Remove a request and say how it ended."""

    request: Request
    ok: bool
    why: str


@dataclass(frozen=True, slots=True)
class ExtendFence:
    """Let Postgres run as primary until `deadline_s` (boottime).

    MUST be in force BEFORE a swap that records mode sync (S2).
    """

    term: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class LiftFence:
    """No deadline: nobody else can be promoted (I6).

    Only AFTER a swap that records mode solo was confirmed (S2).
    """

    term: int


@dataclass(frozen=True, slots=True)
class FencePostgres:
    """Stop Postgres at once (SIGQUIT, then SIGKILL of all of it): another node leads."""

    term: int
    why: str


@dataclass(frozen=True, slots=True)
class StartPostgres:
    """Start Postgres through the fence; a job.

    As a primary only with `term` ours and fresh, with `deadline_s` (None: solo, no
    deadline), and closed to clients (S8).
    """

    role: Role
    term: int
    deadline_s: float | None
    following: str | None
    """For a standby: the member to follow; None: nobody yet."""


@dataclass(frozen=True, slots=True)
class StopPostgres:
    """Stop Postgres; a job.  `fast` falls back to an immediate stop after `patience_s` (S5)."""

    term: int
    fast: bool
    patience_s: float
    settle_s: float = 0.0
    """Before that, clients' transactions may take so long to end: the proxies begin no more."""


@dataclass(frozen=True, slots=True)
class KillRemnants:
    """SIGKILL what a dead postmaster left behind."""

    term: int


@dataclass(frozen=True, slots=True)
class Detach:
    """Clear primary_conninfo and reload, so that no commit is acknowledged here any more.

    The receiver may outlive the reload: it MUST be seen gone BEFORE a claim (S3, I3).
    """

    term: int


@dataclass(frozen=True, slots=True)
class Follow:
    """Point the running standby at `leader`."""

    term: int
    leader: str


@dataclass(frozen=True, slots=True)
class Promote:
    """Make the running standby the primary of `term`.

    The term MUST be ours in the store and the fence armed or lifted for it BEFORE (I1).
    """

    term: int


@dataclass(frozen=True, slots=True)
class SetSyncNames:
    """Set synchronous_standby_names and prove it effective; a job when not empty (S2)."""

    term: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Admit:
    """Let clients in (pg_hba).  Only when every commit they could see is held as recorded (S8)."""

    term: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """On a running primary: our roles, settings and slots for `slots`; a job, may be repeated."""

    term: int
    slots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Write a checkpoint, so that the stop that follows is short; a job."""

    term: int


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """Render the settings again and reload; a job, which fails where Postgres takes them not."""

    term: int


@dataclass(frozen=True, slots=True)
class Initdb:
    """Make a new data directory; a job."""


@dataclass(frozen=True, slots=True)
class Clone:
    """Copy `leader`'s data beside the old directory, which is kept (I10); a job."""

    term: int
    leader: str


@dataclass(frozen=True, slots=True)
class Rewind:
    """Take this data directory back to where it parted from `leader`'s history (S9); a job."""

    term: int
    leader: str


Action = (
    SwapState
    | Publish
    | FinishRequest
    | ExtendFence
    | LiftFence
    | FencePostgres
    | StartPostgres
    | StopPostgres
    | KillRemnants
    | Detach
    | Follow
    | Promote
    | SetSyncNames
    | Admit
    | Prepare
    | Checkpoint
    | ApplySettings
    | Initdb
    | Clone
    | Rewind
)
