"""What a node remembers between decisions: one frozen value, passed in and out."""

from dataclasses import dataclass

from flightmode.model.lsn import NOWHERE, Lsn
from flightmode.model.member import Member


@dataclass(frozen=True, slots=True)
class Watched:
    """A standby that streams from us: since when without a break, and when it last spoke."""

    name: str
    since_s: float
    spoke_s: float
    marker: str


@dataclass(frozen=True, slots=True)
class Memory:
    """All of it may be lost at a restart of the agent without harm to safety."""

    term: int = 0
    """The term that the rest of this value belongs to; a new term clears it."""
    primary_since_s: float | None = None
    """Since when Postgres has been seen running here as this term's primary."""
    crashed: bool = False
    """It ran as this term's primary and died: a promotable standby is asked to take over."""
    fenced: bool = False
    """… and the fence's permission was over when it died: nobody here wanted it to be down."""
    promoting_since_s: float | None = None
    promote_asked: bool = False
    """This agent may have asked Postgres to promote in this term: it may yet become a primary."""
    standing_at: Lsn | None = None
    standing_since_s: float | None = None
    """Since when a standby that was asked to promote has replayed no more than that."""
    unguarded_since_s: float | None = None
    """Since when the fence does not answer, while a standby here is to be promoted."""
    starting_since_s: float | None = None
    dying_since_s: float | None = None
    """Since when the postmaster is gone and something of it is not."""
    offered_since_s: float | None = None
    watched: tuple[Watched, ...] = ()
    removed: tuple[tuple[str, float], ...] = ()
    """Standbys that were taken out of the sync set, and when: a flap has to wait (S2)."""
    overruled: bool = False
    """Somebody else's synchronous_standby_names holds, and not ours."""
    admit_from: Lsn | None = None
    """A primary started closed: clients come in once a holder has flushed this position (S8)."""
    task: str | None = None
    """The id of the request that is being carried out here …"""
    task_since_s: float = 0.0
    task_stage: str = ""
    """… and how far: "checkpoint", "stop", "start", "settings"."""
    namesake: str | None = None
    """The machine that was last seen to write under this node's name …"""
    namesake_s: float | None = None
    """… and when; the silence of etcd does not count."""
    published: Member | None = None
    published_s: float = -1e9
    wal_heard_s: float | None = None
    """When the leader's Postgres last sent this standby anything (S3.1's veto)."""
    wal_seen: Lsn = NOWHERE
    """How far this standby's WAL went when it was last looked at."""
    astray_since_s: float | None = None
    """Since when this standby should stream and does not."""
