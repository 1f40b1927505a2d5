"""What a node hears of the other nodes beside the store: signs of life, never grounds for safety.

All times are CLOCK_BOOTTIME of the node that hears.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heard:
    """When each heartbeat of one database node was last heard; None: not since we listen."""

    node: str
    agent_udp_s: float | None = None
    agent_tcp_s: float | None = None
    fence_s: float | None = None
    """The fence sends over UDP alone: it must never wait for anybody."""

    @property
    def all_known(self) -> tuple[float, float, float] | None:
        """All three; None when one of them was never heard: its silence says nothing."""
        agent_udp_s, agent_tcp_s, fence_s = self.agent_udp_s, self.agent_tcp_s, self.fence_s
        if agent_udp_s is None or agent_tcp_s is None or fence_s is None:
            return None
        return agent_udp_s, agent_tcp_s, fence_s


@dataclass(frozen=True, slots=True)
class Listening:
    """What a node has heard, and how well it has listened."""

    since_s: float | None = None
    """Since when this agent listens; None: it does not."""
    attentive_since_s: float = 0.0
    """Since when it has listened without a gap: who slept can't say that others were silent."""
    heard: tuple[Heard, ...] = ()
    deaf: str | None = None
    """Why it does not listen, for people."""

    def of(self, node: str) -> Heard | None:
        return next((heard for heard in self.heard if heard.node == node), None)


NOT_LISTENING = Listening()
