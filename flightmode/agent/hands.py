"""What a loop needs to touch the world; the simulator passes its own."""

from dataclasses import dataclass

from flightmode.agent.clock import Clock
from flightmode.fence.port import Fence
from flightmode.postgres.port import Postgres
from flightmode.pulse.port import Pulse
from flightmode.store.port import Placing, Store


@dataclass(frozen=True, slots=True)
class Hands:
    """One of each.  A witness has neither Postgres nor a fence."""

    clock: Clock
    store: Store
    cluster: str
    """The cluster's name: below it lie all its keys (store/keys.py)."""
    postgres: Postgres | None
    fence: Fence | None
    placing: Placing | None = None
    """None: etcd's leader is left where it is."""
    pulse: Pulse | None = None
    """None: no heartbeats are sent or heard, and a failover waits for the whole ttl."""
