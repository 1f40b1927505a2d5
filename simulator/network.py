"""Links between hosts: delay, cuts (also of one direction), and streams over them.

A datagram over a cut link is gone.  What is sent over a stream is sent again until it
arrives or the stream is closed, as TCP does: it may arrive long after it was written.
"""

from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from simulator.host import Host

_RESEND_S = 0.2
_RESEND_AT_MOST_S = 1.6


class Network:
    """Who reaches whom, and how fast."""

    def __init__(self, hosts: Mapping[str, Host], dice: Random) -> None:
        self.hosts = hosts
        self._dice = dice
        self._cuts: dict[tuple[str, str], int] = {}
        self.slow: dict[str, float] = {}
        """Hosts whose links take so much longer, in seconds."""
        self.lossy: dict[str, float] = {}
        """Hosts of whose packets so many get lost."""
        self.doubled: dict[str, float] = {}
        """Hosts of whose datagrams so many arrive twice."""
        self.changed: Callable[[], None] = lambda: None
        """Called after each cut and each repair."""

    def cut(self, source: str, target: str) -> None:
        """Nothing gets from one to the other; may be nested."""
        self._cuts[source, target] = self._cuts.get((source, target), 0) + 1
        self.changed()

    def repair(self, source: str, target: str) -> None:
        left = self._cuts.get((source, target), 0) - 1
        if left > 0:
            self._cuts[source, target] = left
        else:
            self._cuts.pop((source, target), None)
        self.changed()

    def repair_all(self) -> None:
        self._cuts.clear()
        self.slow.clear()
        self.lossy.clear()
        self.doubled.clear()
        self.changed()

    def reaches(self, source: str, target: str) -> bool:
        """Whether what is sent now gets there."""
        return not self._cuts or source == target or (source, target) not in self._cuts

    def lost(self, source: str, target: str, dice: Random | None = None) -> bool:
        """Whether this one packet gets lost."""
        if not self.lossy or source == target:
            return False
        chance = self.lossy.get(source, 0.0) + self.lossy.get(target, 0.0)
        return (dice or self._dice).random() < chance

    def talk(self, one: str, other: str) -> bool:
        """Whether both directions work and both machines run."""
        hosts = self.hosts
        return (
            hosts[one].up
            and hosts[other].up
            and self.reaches(one, other)
            and self.reaches(other, one)
        )

    def delay_s(self, source: str, target: str, dice: Random | None = None) -> float:
        if source == target:
            return 0.00005
        dice = dice or self._dice
        delay_s = 0.0003 + 0.0012 * dice.random()
        if dice.random() < 0.01:
            delay_s += 0.05 * dice.random()
        if not self.slow:
            return delay_s
        return delay_s + self.slow.get(source, 0.0) + self.slow.get(target, 0.0)

    def send(self, source: str, target: str, act: Callable[..., object], *args: Any) -> None:
        """Do `act` at the target when the datagram arrives, if it does."""
        if not self.hosts[source].up or not self.reaches(source, target):
            return
        if self.lost(source, target):
            return
        host = self.hosts[target]
        if host.up:
            host.later(self.delay_s(source, target), self._arrive, source, target, act, args)

    def _arrive(
        self, source: str, target: str, act: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        if self.reaches(source, target):
            act(*args)


class Stream:
    """One direction of a connection: in order, again and again until it arrives."""

    def __init__(
        self, network: Network, source: str, target: str, dice: Random | None = None
    ) -> None:
        self._network = network
        self._dice = dice
        self._source = network.hosts[source]
        self._target = network.hosts[target]
        self._loop = self._source.loop
        self._lives = (self._source.life, self._target.life)
        self._queue: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.busy = False
        self._tries = 0
        self.closed = False

    def write(self, act: Callable[..., object], *args: Any) -> None:
        if self.closed:
            return
        self._queue.append((act, args))
        if not self.busy:
            self.busy = True
            self._send()

    def close(self) -> None:
        """What is under way is lost."""
        self.closed = True
        self._queue.clear()

    def _send(self) -> None:
        delay_s = self._network.delay_s(self._source.name, self._target.name, self._dice)
        self._loop.after(delay_s, self._arrive)

    def _arrive(self) -> None:
        if self.closed or self._lives != (self._source.life, self._target.life):
            return
        ends = self._source.name, self._target.name
        network = self._network
        gone = not network.reaches(*ends) or network.lost(*ends, self._dice)
        if self._target.frozen or gone:
            self._tries += 1
            again_s = min(_RESEND_AT_MOST_S, _RESEND_S * 2 ** min(self._tries, 8))
            self._loop.after(again_s, self._arrive)
            return
        self._tries = 0
        # What was written meanwhile travels in the same segment.
        ready, self._queue = self._queue, deque()
        self.busy = False
        for act, args in ready:
            if not self.closed:
                act(*args)
