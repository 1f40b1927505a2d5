"""What one node publishes of itself at `members/<node>`, and how others see it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from flightmode.model.lsn import Lsn
from flightmode.model.server import Run, Slot
from flightmode.model.timeline import History

OPERATOR: Final = "operator"
"""The name on the certificate of whoever runs the cluster; no application's host has it."""

NO_FENCE = "none"
"""The `fence_level` of a node whose fence does not answer: it promotes, starts and ends nothing."""


class NodeKind(StrEnum):
    DATABASE = "database"
    WITNESS = "witness"


@dataclass(frozen=True, slots=True)
class Node:
    """A node as flightmode.toml has it."""

    name: str
    kind: NodeKind
    host: str
    """The address at which the other nodes reach it."""
    postgres_port: int = 5432
    api_port: int = 8008
    heartbeat_port: int = 8009


@dataclass(frozen=True, slots=True)
class Member:
    """What a node says of itself."""

    name: str
    kind: NodeKind
    version: str
    machine: str
    """The host's machine id: two agents must not carry one name (R45)."""
    term: int
    """The term it last saw."""
    run: Run
    system_identifier: str | None
    history: History | None
    position: Lsn
    replayed: Lsn
    following: str | None
    streaming: bool
    slots: tuple[Slot, ...]
    admits_clients: bool
    job: str | None
    problem: str | None
    """`CODE: text` of what keeps the node from doing its part, if anything does."""
    disk_free: float
    fence_level: str
    pending_restart: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    suspects: int | None = None
    """The term whose leader's host this node has lost every sign of life of (S3.1)."""
    takes_up: bool = False
    """It takes up a term that it was given by a swap, before it promotes (`ClusterState.given`);
    False: it is of a version that promotes at once, so nobody could safely take the term back."""
    fence_term: int = 0
    """The highest term that its fence has served: no state of an earlier one is the newest."""
    parting: bool = False
    """It is a primary that is about to be stopped on purpose: nothing is to be begun there."""


@dataclass(frozen=True, slots=True)
class MemberSeen:
    """A member's record, with when its last change was first seen on the own clock."""

    member: Member
    revision: int
    changed_s: float
