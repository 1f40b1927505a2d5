"""One node: its machine, and what runs on it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random

from flightmode.agent.act import Done
from flightmode.agent.hands import Hands
from flightmode.agent.journal import Silence
from flightmode.agent.loop import Agent
from flightmode.agent.observe import Identity
from flightmode.decide.words import in_words
from flightmode.model.decision import Decision
from flightmode.model.member import Node, NodeKind
from flightmode.model.policy import Policy
from flightmode.model.view import View
from simulator.fence import FenceProcess, SimFence
from simulator.hand import SimPostgres
from simulator.heartbeats import SimPulse
from simulator.history import Began, Broke, Extended, History
from simulator.host import Host
from simulator.loop import VirtualLoop
from simulator.postgres import SimServer
from simulator.store import Etcd, SimPlacing, SimStore

CLUSTER = "sim"
_RESTARTED_AFTER_S = 1.0
_OURS = ("FM698", "FM699")
"""A decision broke a rule; something happened that nobody foresaw."""
# After so long an agent that runs has seen what there is to see.
_LOOKED_S = 3.0


class StoryJournal:
    """A journal of the agent that writes into the story."""

    def __init__(self, node: str, history: History, loop: VirtualLoop) -> None:
        self._node = node
        self._history = history
        self._loop = loop
        self._silence = Silence()
        self._broken: set[str] = set()
        self.last: Decision | None = None

    def write(self, view: View, decision: Decision, outcomes: tuple[Done, ...]) -> None:
        self.last = decision
        told = (*(result.error for result in view.results), *(done.error for done in outcomes))
        for error in (decision.problem, *told):
            if error is not None and error.startswith(_OURS):
                self._broke(error)
        if self._silence.hides(view, decision, outcomes):
            return
        done = "; ".join(in_words(one.action) + _failed(one) for one in outcomes)
        what = f"{decision.rule}: {decision.why}" + (f" -> {done}" if done else "")
        self._history.tell(self._loop.time(), self._node, what)

    def _broke(self, error: str) -> None:
        if error not in self._broken:
            self._broken.add(error)
            self._history.add(Broke(self._loop.time(), self._node, error))


def _failed(done: Done) -> str:
    return "" if done.error is None else f" (FAILED: {done.error})"


class SimNode:
    """A host with an agent; on a database host also a fence and Postgres."""

    def __init__(
        self, node: Node, host: Host, etcd: Etcd, policy: Policy, history: History, dice: Random
    ) -> None:
        self.node = node
        self.name = node.name
        self.host = host
        self.server: SimServer | None = None
        self.fence: FenceProcess | None = None
        self.agent: Agent | None = None
        self.pulse: SimPulse | None = None
        self.agent_hung = False
        self.agent_since_s = 0.0
        self.fence_since_s = 0.0
        """Since when its fence gets to run."""
        self.journal = StoryJournal(node.name, history, host.loop)
        self._etcd = etcd
        self._policy = policy
        self.ttl_s = policy.ttl_s
        """What the next agent goes by: its flightmode.toml may not be the others'."""
        self.unknown: frozenset[str] = frozenset()
        """Nodes that its flightmode.toml does not have, or no longer."""
        self._history = history
        self._dice = dice
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._resumed: asyncio.Event | None = None

    @property
    def agent_runs(self) -> bool:
        """Its process is there, and gets to run."""
        return self._task is not None and not self.agent_hung and not self.host.frozen

    @property
    def is_database(self) -> bool:
        return self.node.kind is NodeKind.DATABASE

    def tell(self, what: str) -> None:
        self._history.tell(self.host.loop.time(), self.name, what)

    # ------------------------------------------------------------------ the agent

    async def _gate(self) -> None:
        """Until the agent's process is scheduled."""
        while self.host.frozen or self.agent_hung:
            if self.host.frozen:
                await self.host.awake()
            else:
                self._resumed = self._resumed or asyncio.Event()
                await self._resumed.wait()

    def start_agent(self) -> None:
        if self._task is not None or not self.host.up:
            return
        gate: Callable[[], object] = self._gate
        store = SimStore(self._etcd, self.host, gate)
        postgres = fence = None
        if self.server is not None and self.fence is not None:
            postgres = SimPostgres(self.server, gate)
            fence = SimFence(self.fence, self._gate, self._extended)
        nodes = tuple(node for node in self._policy.nodes if node.name not in self.unknown)
        peers = tuple(node.name for node in nodes if node.name != self.name)
        self.pulse = SimPulse(self.host, peers, self._gate)
        placing = SimPlacing(self._etcd, self._gate)
        hands = Hands(self.host.clock, store, CLUSTER, postgres, fence, placing, self.pulse)
        identity = Identity(self.node, f"machine-{self.host.name}", "sim")
        policy = replace(self._policy, nodes=nodes, ttl_s=self.ttl_s)
        self.agent = Agent(identity, policy, hands, self.journal)
        self.agent_since_s = self.host.loop.time()
        self._history.add(Began(self.agent_since_s, self.name))
        self._task = asyncio.get_running_loop().create_task(self.agent.run())
        self._task.add_done_callback(self._agent_ended)

    def _agent_ended(self, task: "asyncio.Task[None]") -> None:
        if self._task is task:
            self._task = None
        if task.cancelled() or task.exception() is None:
            return
        what = _innermost(task.exception())
        self._history.add(Broke(self.host.loop.time(), self.name, what))
        self.tell(f"THE AGENT BROKE: {what}")
        self.host.later(_RESTARTED_AFTER_S, self.start_agent)

    def kill_agent(self) -> None:
        self.resume_agent()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def end_agent(self) -> None:
        """SIGTERM."""
        agent = self.agent
        assert agent is not None

        async def end() -> None:
            await agent.end()
            self.kill_agent()

        self._ending = asyncio.get_running_loop().create_task(end())

    def hang_agent(self) -> None:
        self.agent_hung = True

    def resume_agent(self) -> None:
        self.agent_hung = False
        self.agent_since_s = self.host.loop.time()
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def starve(self) -> None:
        """Neither the agent nor the fence gets to run; Postgres does."""
        self.hang_agent()
        if self.fence is not None:
            self.fence.hung = True

    def feed(self) -> None:
        self.resume_agent()
        if self.fence is not None:
            if self.fence.hung:
                self.fence_since_s = self.host.loop.time()
            self.fence.hung = False
            self.fence.tick()

    @property
    def agent_well(self) -> bool:
        """It runs, and has had the time to look around."""
        age_s = self.host.loop.time() - self.agent_since_s
        frozen = self.host.frozen or self.agent_hung
        return self._task is not None and not frozen and age_s > _LOOKED_S

    @property
    def fence_well(self) -> bool:
        """It runs, and the agent has had the time to tell it what the term allows."""
        age_s = self.host.loop.time() - self.fence_since_s
        return self.fence is not None and not self.fence.hung and age_s > _LOOKED_S

    def _extended(self, term: int, deadline_s: float) -> None:
        at_s, clock = self.host.loop.time(), self.host.clock
        now_s, wall_s = clock.now_s(), clock.wall_s()
        fact = Extended(at_s, self.name, self.host.life, term, deadline_s, now_s, wall_s)
        self._history.add(fact)

    # ------------------------------------------------------------------ the machine

    def power_off(self) -> None:
        if not self.host.up:
            return
        self.kill_agent()
        self.host.power_off()
        if self.fence is not None and self.server is not None:
            self.fence.power_off()
            self.server.power_off()

    def power_on(self) -> None:
        if self.host.up:
            return
        self.host.power_on()
        if self.fence is not None:
            self.fence.power_on()
        self.host.later(self._dice.uniform(0.5, 3.0), self.start_agent)


def _innermost(error: BaseException | None) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    trace = error.__traceback__ if error is not None else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
    return f"{type(error).__name__}: {error}{where}"
