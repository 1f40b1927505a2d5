"""What a node remembers between decisions: one frozen value, passed in and out."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Watched:
    """Since when a standby streams without a break, and when it last spoke (own clock)."""

    name: str
    since_s: float
    spoke_s: float
    marker: str


@dataclass(frozen=True, slots=True)
class Memory:
    """All of it may be lost at a restart of the agent without harm to safety."""

    term: int = 0
    """The term that the rest of this value belongs to."""
    led_as_primary: bool = False
    """In this term Postgres has been seen running here as the leader's primary."""
    admit_from: int | None = None
    """A primary that was just started lets clients in once a holder has flushed this position (S8)."""
    promoting_since_s: float | None = None
    starting_since_s: float | None = None
    offered_since_s: float | None = None
    """When a handover was first offered."""
    watched: tuple[Watched, ...] = ()
    removed: tuple[tuple[str, float], ...] = ()
    """Standbys that were taken out of the sync set, and when: a flap has to wait (S2)."""
    switching: str | None = None
    """The id of the switchover request whose stop of Postgres was begun."""
    switching_since_s: float | None = None
    checkpointed: str | None = None
    """The id of the request for which the checkpoint before the stop was made."""
    published_s: float = -1e9
    prepared_term: int = 0
    """The term in which roles and slots were last ensured."""
