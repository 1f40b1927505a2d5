"""What happened in a run: the facts that the checkers judge, and the story for people.

Facts are of the world, not of any node: what etcd really holds, what clients were really
told.  `at_s` is the simulation's time, the same for all nodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from flightmode.model.cluster import ClusterState

Rows = frozenset[int]

UNTOLD = "nobody can tell"
"""Of a healing: who was left out has become the only one who may lead."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A swap of the `state` key was carried out by etcd."""

    at_s: float
    node: str
    """Whose swap it was."""
    revision: int
    old: ClusterState | None
    new: ClusterState | None
    """None: it was deleted."""
    sent_s: float
    """When it was sent, by the clock of that node …"""
    life: int
    """… in this life of its machine."""
    compared: bool
    """It was a compare-and-swap of this very key."""
    true_wall_s: float
    holds: Rows | None
    """When the leader changed: what the new leader has flushed."""
    busy: str | None
    """When the leader changed: why its data directory is of no use at this moment."""
    ran: bool
    """When the leader changed: the old leader's Postgres runs as a primary, and is not ending."""
    missed_s: float | None = None
    """When the leader changed: for how long two others had both missed every sign of life of the
    old one's machine, and the state no renewal, in the moment in which this was sent."""
    gave: Rows | None = None
    """When the old leader gave the term away in a switchover: what it has flushed itself."""
    able: bool = True
    """Of who swapped it: its fence and its data are there, so that it could start Postgres."""


@dataclass(frozen=True, slots=True)
class StateKnown:
    """An answer told a node what the state is (None: its swap has an unknown outcome)."""

    at_s: float
    node: str
    state: ClusterState | None


@dataclass(frozen=True, slots=True)
class Began:
    """A new agent, which knows nothing of what the one before was told, or was about to do."""

    at_s: float
    node: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A client was told that its row is committed."""

    at_s: float
    node: str
    row: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A client read this row."""

    at_s: float
    node: str
    row: int


@dataclass(frozen=True, slots=True)
class BecamePrimary:
    """Postgres takes clients' writes from here on."""

    at_s: float
    node: str
    timeline: int
    promoted: bool
    holds: Rows
    state: ClusterState | None
    """As etcd really has it in this moment."""


@dataclass(frozen=True, slots=True)
class Extended:
    """The fence took a deadline."""

    at_s: float
    node: str
    life: int
    term: int
    deadline_s: float
    now_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Promised:
    """A standby has promised its leader not to claim (S6)."""

    at_s: float
    node: str
    to: str
    term: int
    until_s: float
    """By the simulation's time."""


@dataclass(frozen=True, slots=True)
class PermissionEnded:
    """The fence's permission ended."""

    at_s: float
    node: str
    why: str
    primary: bool
    """A primary was stopped by it."""
    state: ClusterState | None
    agent_well: bool
    """Its agent ran, and had run for a while."""
    fence_well: bool
    """The fence could be told of a later deadline, and could have been for a while."""
    wall_s: float
    """By the clock of that machine: whose pause is over is not fenced in it."""


@dataclass(frozen=True, slots=True)
class Killed:
    """An agent had all of a primary that ran ended by SIGKILL."""

    at_s: float
    node: str
    state: ClusterState | None


@dataclass(frozen=True, slots=True)
class Parted:
    """A primary was asked to stop, and ends its clients' sessions."""

    at_s: float
    node: str
    state: ClusterState | None
    said: bool
    """etcd holds its word that it is about to be stopped."""
    unanswered_s: float | None
    """For how long the last word that it had for etcd has not been answered; None: it was."""


@dataclass(frozen=True, slots=True)
class Awoke:
    """A machine stood still, uncounted by CLOCK_BOOTTIME, and goes on since a moment."""

    at_s: float
    node: str
    runs: bool
    """Its primary runs on by the deadline of before."""


@dataclass(frozen=True, slots=True)
class Discarded:
    """A data directory was rewound, or another one was put in its place."""

    at_s: float
    node: str
    how: str
    lost: Rows
    """Rows that it held, and that nothing on this machine holds any more."""
    source: Rows
    """What is now in its place holds these."""


@dataclass(frozen=True, slots=True)
class CopyBegan:
    """A program begins to write a node's data directory: a clone, or a rewind."""

    at_s: float
    node: str
    how: str
    state: ClusterState | None
    """As etcd really has it in this moment …"""
    since_s: float
    """… and since when its leader, mode and sync set are so."""


@dataclass(frozen=True, slots=True)
class Broke:
    """Our own code failed in a way that nobody foresaw."""

    at_s: float
    node: str
    what: str


@dataclass(frozen=True, slots=True)
class Healed:
    """From here on everything works again."""

    at_s: float
    from_s: float
    """When a pause that still stood, and its grace, are over."""
    without: str = ""
    """All but this node."""


@dataclass(frozen=True, slots=True)
class Looked:
    """After the healing: which nodes run a primary that takes clients, and what is recorded."""

    at_s: float
    primaries: tuple[str, ...]
    served: bool
    """A client's row was acknowledged since the last look."""
    synced: bool
    """Mode sync is recorded and the standby streams from the primary."""
    why: str
    routes: tuple[tuple[str, str | None], ...] = ()
    """Where each node, by its last view, sends who wants to write."""

    @property
    def routed(self) -> bool:
        """There is one primary, and everybody names that one."""
        named = {writes for _, writes in self.routes}
        return len(self.primaries) == 1 and named == {*self.primaries}


@dataclass(frozen=True, slots=True)
class Standing:
    """At the end: what a node has flushed."""

    at_s: float
    node: str
    holds: Rows
    state: ClusterState | None


Fact = (
    StateChanged
    | StateKnown
    | Began
    | Acknowledged
    | Seen
    | BecamePrimary
    | Extended
    | Promised
    | PermissionEnded
    | Killed
    | Parted
    | Awoke
    | Discarded
    | CopyBegan
    | Broke
    | Healed
    | Looked
    | Standing
)
F = TypeVar("F")


@dataclass
class History:
    """Everything, in the order in which it happened."""

    facts: list[Fact] = field(default_factory=list)
    story: list[tuple[float, str, str]] = field(default_factory=list)

    def add(self, fact: Fact) -> None:
        self.facts.append(fact)

    def tell(self, at_s: float, who: str, what: str) -> None:
        """A line of the story."""
        self.story.append((at_s, who, what))

    def of(self, kind: type[F]) -> Iterator[F]:
        """The facts of this kind, in order."""
        return (fact for fact in self.facts if isinstance(fact, kind))
