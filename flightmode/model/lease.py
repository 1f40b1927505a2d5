"""A peer lease: a promotable standby's promise to the leader, given while etcd is silent (S6)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leased:
    """What a standby has promised to this leader: not to claim for so long."""

    by: str
    term: int
    sent_s: float
    """When this leader *asked*, by its own clock: the promise began no earlier (I8)."""
    for_s: float
