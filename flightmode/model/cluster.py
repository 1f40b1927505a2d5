"""What the cluster has agreed on: the one `state` key, and what people ask of it.

Invariants I1, I4: leader, term, mode and sync set change only together, by one
compare-and-swap on this one value.
"""

from dataclasses import dataclass
from enum import StrEnum

from flightmode.model.lsn import Lsn


class Mode(StrEnum):
    """How a commit of the leader gets acknowledged."""

    SYNC = "sync"
    """Only when a node of `ClusterState.sync` has flushed it."""
    SOLO = "solo"
    """By the leader alone; nobody else is promotable."""


@dataclass(frozen=True, slots=True)
class Handover:
    """The leader's Postgres is stopped, and stays so until this is withdrawn: `to` may claim."""

    to: str
    why: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Until then no change of role and no fencing (I7).  Ends by itself."""

    until_wall_s: float
    asked_by: str


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The value of the `state` key."""

    system_identifier: str
    term: int
    leader: str
    mode: Mode
    sync: tuple[str, ...]
    """Holders of every acknowledged commit besides the leader: the promotable nodes, sorted."""
    renewal: int
    """Bumped by the leader every `renew_every_s`; others time its changes with their own clocks."""
    reason: str
    """Why this term began."""
    since_wall_s: float
    previous: str | None = None
    """Who led the term before."""
    handover: Handover | None = None
    pause: Pause | None = None
    crashes_wall_s: tuple[float, ...] = ()
    """When a leader last handed over because its Postgres died (S10's guard); bounded."""
    ttl_s: float = 0.0
    """How long the leader's silence has to last before anybody takes over, if that is longer than
    their own: no permission of the leader outlives it (0: of a version that did not say)."""
    passed_over: tuple[str, ...] = ()
    """Nodes that a forced failover did not choose, the old leader first of all, sorted: what they
    hold of acknowledged commits may be nowhere else, so they come back by a copy beside the old
    directory, never by a rewind (I10)."""
    given: bool = False
    """A switchover gave the term to the leader, which has not taken it up: nobody is promoted in it
    before a swap of the leader's own has cleared this, and until then `previous` may take the term
    back (S7).  A version that does not know it clears it with whatever it swaps."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change of leader, kept at `history/<term>`."""

    term: int
    leader: str
    previous: str | None
    reason: str
    wall_s: float
    lsn: Lsn | None
    """Where the new leader stood when it took over."""


class RequestKind(StrEnum):
    """What a person may ask of the cluster."""

    SWITCHOVER = "switchover"
    FAILOVER = "failover"
    """Promote although acknowledged commits may be missing there (the human escape hatch)."""
    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"
    RELOAD = "reload"
    REINIT = "reinit"


@dataclass(frozen=True, slots=True)
class Request:
    """A wish with an expiry, kept at `requests/<kind>` or `requests/<kind>/<node>`."""

    id: str
    kind: RequestKind
    node: str | None
    """The node it concerns: the target of a switchover, the node to restart."""
    asked_by: str
    expires_wall_s: float
    until_wall_s: float | None = None
    """For a pause: until when."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the last request of a kind ended, kept at `events/<kind>` or `events/<kind>/<node>`."""

    request_id: str
    kind: RequestKind
    node: str | None
    ok: bool
    why: str
    wall_s: float
