"""What heartbeats promise: nothing but news.

A heartbeat that arrives says that its sender lived a moment ago.  One that does not arrive
says nothing by itself: it may be the network, a firewall, or our own sleep.  Whoever decides
by silence asks for more than this (decide/suspicion.py), and no safety rests on it (S3).

A peer lease is carried beside them and is more than news: its answer is taken only for a
question of this life of ours that it names by a number nobody can guess, and counts from when
that question was sent.

Two implementations: `network.py`, and the simulator's; both keep what they hear in `ears.Ears`.
"""

from typing import Protocol

from flightmode.model.heartbeat import Listening
from flightmode.model.lease import Leased


class Leases(Protocol):
    """Who asks for, gives and takes promises (S6); heartbeats only carry them."""

    def wish(self) -> tuple[int, tuple[str, ...]] | None:
        """For which term a promise is wanted, and of which nodes; None: of none."""

    def asked(self, node: str, term: int) -> float | None:
        """Give `node` a promise that counts from now; for how long.  None: no."""

    def granted(self, leased: Leased) -> None:
        """A promise has come, in answer to our own asking."""


class Pulse(Protocol):
    """This node's heartbeats, and its ears for those of others."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The numeric addresses that the fence is to send its own heartbeats to."""

    def listening(self) -> Listening:
        """What was heard so far.  Never blocks, never raises."""

    async def run(self, leases: Leases) -> None:
        """Send and listen until cancelled.  A sick network never raises."""
