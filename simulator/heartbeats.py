"""Heartbeats of the simulated hosts: the agent's over UDP and TCP, the fence's over UDP.

What arrives at a machine is noted apart from what its agent makes of it: the checkers judge
a failover by the former.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

from flightmode.model.heartbeat import Listening
from flightmode.model.lease import Leased
from flightmode.pulse.datagram import Gate
from flightmode.pulse.ears import Channel, Ears
from flightmode.pulse.port import Leases
from simulator.host import Host
from simulator.network import Network, Stream

if TYPE_CHECKING:
    from simulator.node import SimNode

Arrive = Callable[[str, str, Any], None]

BEAT_S = 0.25
"""Rarer than the real ones, for speed."""
_KEPT = 300
_ECHO_S = 2.0
"""What arrives twice arrives the second time so much later, at most."""
_QUESTION = "lease question"
_UDP = (Channel.AGENT_UDP, Channel.AGENT_UDP.value)
_FENCE = (Channel.FENCE, Channel.FENCE.value)
_THIS_LIFE_S = 0.0
"""Datagrams are counted over all lives of a machine: the gate needs not tell them apart."""


class SimPulse:
    """Implements `flightmode.pulse.port.Pulse`, for one agent."""

    def __init__(
        self, host: Host, peers: tuple[str, ...], gate: Callable[[], Awaitable[None]]
    ) -> None:
        self._host = host
        self._gate = gate
        self._ears = Ears(peers)
        self.gate = Gate(peers)
        self.open: set[int] = set()
        """Questions for a promise that are not answered."""
        self.targets = peers
        self.leases: Leases | None = None

    def listening(self) -> Listening:
        return self._ears.listening(self._host.clock.now_s())

    def hear(self, node: str, channel: Channel) -> None:
        self._ears.hear(node, channel, self._host.clock.now_s())

    @property
    def now_s(self) -> float:
        return self._host.clock.now_s()

    async def run(self, leases: Leases) -> None:
        self.leases = leases
        while True:
            await self._gate()
            self._ears.tick(self._host.clock.now_s())
            await self._host.loop.sleep(BEAT_S)


class Signs:
    """Which signs of life of a machine have reached another, whatever was made of them."""

    def __init__(self) -> None:
        self._times: defaultdict[tuple[str, str], deque[float]] = defaultdict(
            lambda: deque(maxlen=_KEPT)
        )

    def note(self, source: str, target: str, at_s: float) -> None:
        """One has arrived."""
        self._times[source, target].append(at_s)

    def silence_s(self, source: str, target: str, at_s: float, *, within_s: float = 0.0) -> float:
        """The longest silence that lasted at some moment of the last `within_s` before `at_s`."""
        times = [each for each in self._times[source, target] if each <= at_s]
        ends = [*times[1:], at_s] if times else []
        return max(
            (
                min(end, at_s) - begin
                for begin, end in zip(times, ends, strict=True)
                if end >= at_s - within_s
            ),
            default=at_s,
        )


class Heartbeats:
    """Everybody's, for as long as the machines run."""

    def __init__(self, network: Network, dice: Random, echoes: Random) -> None:
        self._network = network
        self._dice = dice
        self._echoes = echoes
        self._sent = count(1)
        self._newest: dict[tuple[str, str, str], int] = {}
        """Of each way the last datagram that has arrived."""
        self._nodes: dict[str, SimNode] = {}
        self._streams: dict[tuple[str, str], tuple[tuple[int, int], Stream]] = {}
        self.signs = Signs()
        self.muted: Counter[str] = Counter()
        """Whose heartbeats get to nobody."""
        self.granted: Callable[[str, str, int, float], None] = lambda *_: None
        """Who has promised whom, in which term, for how long (by the simulation's time)."""

    def begin(self, nodes: "dict[str, SimNode]") -> None:
        self._nodes = nodes
        for node in nodes.values():
            if node.is_database:
                self._network.hosts[node.name].loop.after(BEAT_S, self._beat, node)

    def _beat(self, node: "SimNode") -> None:
        """This host's turn; a machine that stands still or is off misses it."""
        host = node.host
        host.loop.after(BEAT_S, self._beat, node)
        if not host.up or host.frozen or self.muted[node.name]:
            return
        if node.agent_runs:
            for target in self._nodes:
                if target != node.name:
                    self._datagram(node.name, target, _UDP)
                    self._segment(node.name, target)
            self._ask(node.name)
        if node.fence is not None:
            for target in node.fence.heartbeats_to:
                self._datagram(node.name, target, _FENCE)

    def _datagram(self, source: str, target: str, channel: tuple[Channel, str]) -> None:
        self._send(source, target, self._arrive_once, (*channel, next(self._sent)))

    def _send(self, source: str, target: str, act: Arrive, what: Any) -> None:
        """As `Network.send`, with dice of its own: runs without heartbeats stay as they were."""
        network = self._network
        host = network.hosts[target]
        if not network.reaches(source, target) or not host.up:
            return
        chance = _of_both(network.lossy, source, target)
        if chance and self._dice.random() < chance:
            return
        delay_s = 0.0003 + 0.0012 * self._dice.random()
        delay_s += _of_both(network.slow, source, target)
        host.later(delay_s, act, source, target, what)
        twice = _of_both(network.doubled, source, target)
        if twice and self._echoes.random() < twice:
            delay_s += _ECHO_S * self._echoes.random()
            host.later(delay_s, act, source, target, what)

    def _segment(self, source: str, target: str) -> None:
        """Over a connection: what could not be delivered comes when the network is back."""
        lives = (self._network.hosts[source].life, self._network.hosts[target].life)
        known = self._streams.get((source, target))
        if known is None or known[0] != lives:
            known = (lives, Stream(self._network, source, target, self._dice))
            self._streams[source, target] = known
        if not known[1].busy:
            known[1].write(self._arrive, source, target, Channel.AGENT_TCP)

    def _arrive_once(self, source: str, target: str, what: tuple[Channel, str, int]) -> None:
        """A datagram; what comes again is a sign of life of nobody."""
        channel, kind, number = what
        if not self._network.reaches(source, target):
            return
        node = self._nodes[target]
        if number > self._newest.get((source, target, kind), 0):
            self._newest[source, target, kind] = number
            self.signs.note(source, target, node.host.loop.now_s)
        pulse = node.pulse
        if pulse is None or not node.agent_runs:
            return
        if pulse.gate.admits(source, kind, _THIS_LIFE_S, number):
            pulse.hear(source, channel)

    def _arrive(self, source: str, target: str, channel: Channel) -> None:
        node = self._nodes[target]
        self.signs.note(source, target, node.host.loop.now_s)
        if node.pulse is not None and node.agent_runs:
            node.pulse.hear(source, channel)

    # ------------------------------------------------------------------ peer leases

    def _ask(self, source: str) -> None:
        pulse = self._nodes[source].pulse
        wish = None if pulse is None or pulse.leases is None else pulse.leases.wish()
        if pulse is not None and wish is not None:
            term, targets = wish
            for target in targets:
                number = next(self._sent)
                pulse.open.add(number)
                self._send(source, target, self._asked, (number, term, pulse.now_s, pulse))

    def _asked(self, source: str, target: str, what: tuple[int, int, float, SimPulse]) -> None:
        node = self._nodes[target]
        if node.pulse is None or node.pulse.leases is None or not node.agent_runs:
            return
        number, term, _, _ = what
        if not node.pulse.gate.admits(source, _QUESTION, _THIS_LIFE_S, number):
            return
        for_s = node.pulse.leases.asked(source, term)
        if for_s is not None:
            until_s = node.pulse.now_s + for_s
            self.granted(target, source, term, node.host.clock.until_s(until_s))
            self._send(target, source, self._answered, (*what, for_s))

    def _answered(
        self, source: str, target: str, what: tuple[int, int, float, SimPulse, float]
    ) -> None:
        """To the agent that asked, and to no later one; once."""
        number, term, sent_s, asker, for_s = what
        node = self._nodes[target]
        if node.pulse is not asker or asker.leases is None or not node.agent_runs:
            return
        if number in asker.open:
            asker.open.remove(number)
            asker.leases.granted(Leased(source, term, sent_s, for_s))


def _of_both(each: Mapping[str, float], source: str, target: str) -> float:
    """Mostly no host is named there at all."""
    return each.get(source, 0.0) + each.get(target, 0.0) if each else 0.0
