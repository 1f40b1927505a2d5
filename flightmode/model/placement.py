"""Where etcd's leader is, as one node found it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """Which node's member of etcd leads, and which answer and follow it."""

    leader: str | None
    well: tuple[str, ...] = ()
