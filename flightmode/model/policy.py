"""The settings that a decision may depend on.  Times in seconds."""

from dataclasses import dataclass

from flightmode.model.member import Node, NodeKind


@dataclass(frozen=True, slots=True)
class Policy:
    """From flightmode.toml; equal on all nodes."""

    nodes: tuple[Node, ...]
    bootstrap: str
    """The database node that makes the cluster when there is none yet."""
    pg_major: int
    ttl_s: float = 5.0
    """How long a silent leader keeps its right to write."""
    renew_every_s: float = 1.0
    margin: float = 0.1
    """The part of the ttl given away for clock drift and slow scheduling (I8)."""
    suspect_after_s: float = 1.5
    """So long every sign of life of the leader's host has to be missing at two nodes before its
    standby takes over without waiting for the ttl (S3.1); 0: it always waits."""
    standby_silent_s: float = 2.0
    """A sync standby without a sign of life for so long makes the leader degrade to solo."""
    standby_lost_s: float = 0.8
    """… and one whose host sends no heartbeat any more, for only so long; 0: no such haste."""
    stable_for_s: float = 1.0
    """So long a standby streams before it enters the sync set …"""
    stable_after_flap_s: float = 10.0
    """… and so long when it was removed within the last `flap_window_s`."""
    flap_window_s: float = 60.0
    member_fresh_s: float = 3.0
    """A member's record that has not changed for longer says nothing of the present."""
    handover_patience_s: float = 2.0
    """So long an offered handover waits for its claimant before the leader restarts in place."""
    start_patience_s: float = 10.0
    """So long a primary may take to start while a promotable standby is waiting."""
    promote_patience_s: float = 5.0
    switchover_patience_s: float = 10.0
    """So long the leader tries to complete a switchover once Postgres is being stopped."""
    settle_s: float = 0.5
    """So long a planned stop of a primary waits for the transactions that are under way, while
    the proxies begin no more; whoever comes past a proxy notices nothing of it."""
    stop_patience_s: float = 2.0
    """A planned stop ends waits for logical walsenders after this, then SIGQUIT (S5)."""
    hang_after_s: float = 4.0
    """A primary that takes no new connection, or no small write, for so long is ended where a
    standby could take over (S10); 0: never."""
    crashes_max: int = 2
    """So many failovers by a crash of Postgres within `crash_window_s`, then restarts in place."""
    crash_window_s: float = 600.0
    disk_floor: float = 0.02
    """A node with less of its disk free is never promoted."""
    job_retry_s: float = 5.0
    """Pause after a failed clone or rewind."""
    pause_grace_s: float = 60.0
    """Others honour a pause so much longer than it lasts: wall clocks differ."""

    def node(self, name: str) -> Node | None:
        return next((node for node in self.nodes if node.name == name), None)

    @property
    def databases(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.nodes if node.kind is NodeKind.DATABASE)
