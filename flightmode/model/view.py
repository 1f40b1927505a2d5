"""Everything that a decision may depend on, frozen at one moment."""

from dataclasses import dataclass

from flightmode.model.cluster import ClusterState, Request
from flightmode.model.heartbeat import NOT_LISTENING, Listening
from flightmode.model.lease import Leased
from flightmode.model.member import Member, MemberSeen, Node
from flightmode.model.memory import Memory
from flightmode.model.policy import Policy
from flightmode.model.server import NOT_PROBED, FenceView, Probe, Server


@dataclass(frozen=True, slots=True)
class StoreView:
    """What is known of the store's content, and how well."""

    reachable: bool
    """The last linearizable read was answered; all the rest is as of that answer."""
    read_s: float
    """When the last answered read was *sent* (own clock)."""
    state: ClusterState | None
    state_revision: int
    """`mod_revision` of the state key; 0: there is none."""
    state_changed_s: float
    """When this revision was first seen (own clock): S3's slow path counts from here."""
    in_doubt: int | None
    """The revision that a swap of unknown outcome compared with, while `state_revision` is still
    that one: the swap may yet be carried out, so nothing may be built on its absence (S1)."""
    members: tuple[MemberSeen, ...] = ()
    requests: tuple[Request, ...] = ()
    first_read_s: float | None = None
    """When this agent's first answered read was sent."""
    unreadable: tuple[str, ...] = ()
    """Keys of members and requests that this version cannot read, without the cluster's prefix.
    They are passed over: a newer version wrote them, or nobody of ours."""
    saw_change: bool = False
    """The state has changed since this agent's first look: what an earlier life of it swapped
    can no longer be carried out."""
    saw_term_begin: bool = False
    """An answer since this agent started was of an earlier term: no swap from before its start
    can have compared with a revision of this one."""

    def member(self, name: str) -> Member | None:
        return next((seen.member for seen in self.members if seen.member.name == name), None)


@dataclass(frozen=True, slots=True)
class Renewed:
    """The last swap of ours that the store confirmed while we led in `term`."""

    term: int
    sent_s: float
    """When that swap was *sent*: permission counts from here (I8)."""
    solo: bool
    """It recorded mode solo."""


class JobKind:
    """Names of the long jobs; at most one runs at a time."""

    INITDB = "initdb"
    CLONE = "clone"
    REWIND = "rewind"
    START = "start"
    STOP = "stop"
    CHECKPOINT = "checkpoint"
    SYNC_NAMES = "sync names"
    PREPARE = "prepare"
    SETTINGS = "settings"


@dataclass(frozen=True, slots=True)
class Job:
    """The long job that runs now."""

    kind: str
    term: int
    started_s: float


@dataclass(frozen=True, slots=True)
class JobResult:
    """How the last job of a kind ended."""

    kind: str
    term: int
    ended_s: float
    error: str | None
    """`CODE: text`; None: it succeeded."""


@dataclass(frozen=True, slots=True)
class View:
    """One moment, as one node sees it.  `decide` reads this and nothing else."""

    now_s: float
    """CLOCK_BOOTTIME."""
    wall_s: float
    """Unix time: for people, and for expiries that people gave."""
    me: Node
    machine: str
    version: str
    policy: Policy
    store: StoreView
    server: Server
    fence: FenceView
    renewed: Renewed | None
    job: Job | None
    results: tuple[JobResult, ...]
    """The last result of each kind of job."""
    memory: Memory
    listening: Listening = NOT_LISTENING
    """Heartbeats of the other nodes.  They inform and never make anything safe (S3)."""
    probe: Probe = NOT_PROBED
    leased: Leased | None = None
    """The promotable standby's promise to this leader (S6)."""
    granted_until_s: float = -1e9
    """Until then this node has promised the leader not to claim (S6)."""
    ending: bool = False
    """This agent is about to end, as for another version: the next one goes by what it renews."""

    def result(self, kind: str) -> JobResult | None:
        return next((result for result in self.results if result.kind == kind), None)
