"""What the local Postgres is, as observed at one moment."""

from dataclasses import dataclass
from enum import StrEnum

from flightmode.model.lsn import NOWHERE, Lsn
from flightmode.model.timeline import History


class Run(StrEnum):
    """In which state the local Postgres is."""

    ABSENT = "absent"
    """There is no data directory, or it is empty."""
    STOPPED = "stopped"
    """Nothing of it runs, not even a leftover backend."""
    DYING = "dying"
    """The postmaster is gone but some of its children still live."""
    STARTING = "starting"
    """It runs and does not answer yet (recovery, or just started)."""
    STANDBY = "standby"
    PRIMARY = "primary"
    SILENT = "silent"
    """It runs, did answer before, and does not now."""


class Role(StrEnum):
    """As what a Postgres is started."""

    PRIMARY = "primary"
    STANDBY = "standby"


_OF_A_STANDBY = ("in archive recovery", "shut down in recovery")


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """What pg_controldata and the files say of a data directory."""

    system_identifier: str
    pg_major: int
    timeline: int
    control_state: str
    """As pg_controldata prints it: "in production", "shut down", "shut down in recovery", …"""
    position: Lsn
    """At least how far its WAL goes: the latest checkpoint, or the minimum recovery end."""
    standby_signal: bool
    unfinished: str | None = None
    """"rewind" or "clone" when that was begun here and not finished: not a usable copy."""

    @property
    def was_primary(self) -> bool:
        """Whether it last ran as a primary (and so may hold WAL that nobody else has).

        Also one that was killed "in crash recovery".  Without the signal and still "in archive
        recovery" it is a standby whose promotion was cut off (StartupXLOG removes the file first):
        as a primary it would write on the old timeline.
        """
        return not self.standby_signal and self.control_state not in _OF_A_STANDBY

    @property
    def shut_down_cleanly(self) -> bool:
        return self.control_state in ("shut down", "shut down in recovery")


@dataclass(frozen=True, slots=True)
class Receiver:
    """The WAL receiver of a standby (pg_stat_wal_receiver)."""

    streaming: bool
    sender_host: str
    flushed: Lsn
    timeline: int
    heard_ago_s: float | None = None
    """How long ago the primary last sent it anything, also a mere keepalive."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One row of pg_stat_replication on a primary."""

    name: str
    """application_name, which is the member's name."""
    streaming: bool
    sync_state: str
    """async | potential | sync | quorum"""
    sent: Lsn
    flushed: Lsn
    replayed: Lsn
    reply_marker: str
    """reply_time as text: a new value means that the standby spoke (its clock is not trusted)."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One physical replication slot (pg_replication_slots)."""

    name: str
    active: bool
    wal_status: str
    """reserved | extended | unreserved | lost"""


NOT_OURS = ("?",)
"""Of `Server.sync_names`: a text that we never write."""


@dataclass(frozen=True, slots=True)
class Server:
    """The local Postgres."""

    run: Run
    data: DataDirectory | None = None
    history: History | None = None
    """Its timeline and where it came from (None when it is not known)."""
    position: Lsn = NOWHERE
    """How far WAL is flushed here: written by a primary; received, or replayed, by a standby."""
    replayed: Lsn = NOWHERE
    following: str | None = None
    """The member that the *effective* primary_conninfo names; None when it is empty."""
    receiver: Receiver | None = None
    sync_names: tuple[str, ...] = ()
    """The members in the *effective* synchronous_standby_names (pg_settings), sorted."""
    sync_since: Lsn | None = None
    """Since which position every commit is known to wait for `sync_names`; None: not proven."""
    replicas: tuple[Replica, ...] = ()
    slots: tuple[Slot, ...] = ()
    admits_clients: bool = True
    """Whether pg_hba lets others in than our own roles (S8)."""
    pending_restart: tuple[str, ...] = ()
    """Settings that wait for a restart."""
    lowered_commit: tuple[str, ...] = ()
    """Roles or databases for which synchronous_commit is set below `on` (S2): a loud warning."""
    disk_free: float = 1.0
    """Free part of the data directory's file system, 0..1."""
    prepared: bool = False
    """Our roles exist and our settings are in place (only known of a running primary)."""
    stray_settings: tuple[str, ...] = ()
    refused_settings: tuple[str, ...] = ()
    """What PostgreSQL has against its settings, in its words: those of before are in force."""
    """Settings that safety rests on and that are otherwise, `name = value`: a loud warning."""

    def replica(self, name: str) -> Replica | None:
        return next((row for row in self.replicas if row.name == name), None)

    def slot(self, name: str) -> Slot | None:
        return next((slot for slot in self.slots if slot.name == name), None)


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a running primary takes a new connection and a small write (S10)."""

    failing_since_s: float | None = None
    """Since when (boottime) it does not; None: it does, or is not asked."""
    why: str = ""


NOT_PROBED = Probe()


@dataclass(frozen=True, slots=True)
class FenceView:
    """What the fence says of itself."""

    reachable: bool
    running: bool = False
    """A postmaster of ours runs."""
    tree_empty: bool = True
    """Nothing of any Postgres that it started is left."""
    role: Role | None = None
    term: int = 0
    deadline_s: float | None = None
    """Boottime at which Postgres is stopped; None with `lifted` False: no permission was given."""
    lifted: bool = False
    """No deadline applies (mode solo, I6)."""
    expired: bool = False
    level: str = "fence"
    exited_s: float | None = None
    """When the last postmaster exited."""
