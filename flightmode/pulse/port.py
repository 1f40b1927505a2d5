"""What heartbeats promise: nothing but news.

A heartbeat that arrives says that its sender lived a moment ago.  One that does not arrive
says nothing by itself: it may be the network, a firewall, or our own sleep.  Whoever decides
by silence asks for more than this (decide/suspicion.py), and no safety rests on it (S3).

Two implementations: `network.py`, and the simulator's; both keep what they hear in `ears.Ears`.
"""

from typing import Protocol

from flightmode.model.heartbeat import Listening


class Pulse(Protocol):
    """This node's heartbeats, and its ears for those of others."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The numeric addresses that the fence is to send its own heartbeats to."""

    def listening(self) -> Listening:
        """What was heard so far.  Never blocks, never raises."""

    async def run(self) -> None:
        """Send and listen until cancelled.  A sick network never raises."""
