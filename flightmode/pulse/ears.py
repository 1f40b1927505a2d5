"""What was heard, and whether we listened: bookkeeping, without a socket or a clock."""

from collections.abc import Iterable
from enum import Enum
from typing import Final

from flightmode.model.heartbeat import Heard, Listening

GAP_S: Final = 0.5
"""Who was not served for so long has not listened meanwhile."""


class Channel(Enum):
    """By which process and on which way a heartbeat came."""

    AGENT_UDP = "agent udp"
    AGENT_TCP = "agent tcp"
    FENCE = "fence udp"


class Ears:
    """One node's, for one life of its agent."""

    def __init__(self, nodes: Iterable[str]) -> None:
        """`nodes`: whose heartbeats count."""
        self._heard = {node: Heard(node) for node in nodes}
        self._since_s: float | None = None
        self._attentive_since_s = 0.0
        self._tick_s = 0.0

    def tick(self, now_s: float) -> None:
        """Called several times in `GAP_S` by the loop that also takes in what arrives."""
        if self._since_s is None:
            self._since_s = self._attentive_since_s = now_s
        elif now_s - self._tick_s > GAP_S:
            self._attentive_since_s = now_s
        self._tick_s = now_s

    def stopped(self) -> None:
        """Nothing is taken in any more."""
        self._since_s = None

    def hear(self, node: str, channel: Channel, now_s: float) -> None:
        """A heartbeat that was found genuine has arrived."""
        heard = self._heard.get(node)
        if heard is not None:
            udp_s, tcp_s, fence_s = heard.agent_udp_s, heard.agent_tcp_s, heard.fence_s
            match channel:
                case Channel.AGENT_UDP:
                    udp_s = now_s
                case Channel.AGENT_TCP:
                    tcp_s = now_s
                case Channel.FENCE:
                    fence_s = now_s
            self._heard[node] = Heard(node, udp_s, tcp_s, fence_s)

    def listening(self, now_s: float, deaf: str | None = None) -> Listening:
        attentive_since_s = self._attentive_since_s
        if self._since_s is not None and now_s - self._tick_s > GAP_S:
            # The tick that would have noticed is late itself.
            attentive_since_s = now_s
        return Listening(self._since_s, attentive_since_s, tuple(self._heard.values()), deaf)
