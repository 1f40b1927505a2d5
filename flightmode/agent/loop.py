"""The main path: observe, decide, act, write it down; again."""

import asyncio
from dataclasses import replace

import structlog

from flightmode.agent.act import Done, Executor
from flightmode.agent.bell import Bell
from flightmode.agent.hands import Hands
from flightmode.agent.job import JobRunner
from flightmode.agent.journal import Journal
from flightmode.agent.lease import LeaseBook
from flightmode.agent.observe import Identity, Observer
from flightmode.agent.placing import keep_placed
from flightmode.agent.probing import Prober
from flightmode.decide import decide
from flightmode.decide.namesake import namesake
from flightmode.errors import FenceError, StoreError
from flightmode.fence.port import Exited, FenceEvent, TreeEmpty
from flightmode.model.action import Promote, Publish
from flightmode.model.decision import Decision
from flightmode.model.memory import Memory
from flightmode.model.policy import Policy
from flightmode.model.view import JobKind, View
from flightmode.store import keys
from flightmode.store.tracker import Tracker

_log = structlog.get_logger("agent.loop")

# A listener that broke is set up again after so long; it only wakes the loop earlier.
_RELISTEN_S = 0.2
# A fence that was started anew sends no heartbeats until it is told to whom.
_TELL_FENCE_S = 1.0
# After a decision that broke an invariant.
_BROKEN_S = 0.5
# An agent that ends renews in one look and has the fence hear of it in the next.
_LAST_LOOKS = 2


class Agent:
    """One node's loop."""

    def __init__(self, identity: Identity, policy: Policy, hands: Hands, journal: Journal) -> None:
        self._hands = hands
        self._journal = journal
        self._me = identity.node.name
        self.bell = Bell()
        self.jobs = JobRunner(hands.clock, self.bell)
        self.tracker = Tracker(hands.store, hands.cluster, hands.clock.now_s)
        self.leases = LeaseBook(self._me, policy, self.tracker, hands.clock)
        self.prober = Prober(hands.clock, self.bell)
        self.observer = Observer(
            identity, policy, hands, self.tracker, self.jobs, self.leases, self.prober
        )
        self.executor = Executor(self._me, hands, self.tracker, self.jobs, self.leases)
        self.memory = Memory()
        self.looked = asyncio.Event()
        """The first look is over, and what followed from it is done."""
        self.view: View | None = None
        self.decision: Decision | None = None
        self._last_looks = 0
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled.  Postgres goes on without us: the fence holds it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen_to_store())
                tasks.create_task(self._listen_to_fence())
                tasks.create_task(self._beat())
                if self._hands.postgres is not None:
                    probing = self.prober.run(self._hands.postgres, lambda: self.view)
                    tasks.create_task(probing)
                if self._hands.placing is not None:
                    place = keep_placed(self._hands.placing, self._hands.clock, lambda: self.view)
                    tasks.create_task(place)
                while True:
                    decision = await self.step()
                    await self.bell.wait(decision.wake_s)
        finally:
            await self.jobs.cancel()

    async def end(self) -> None:
        """Before `run` is cancelled for another agent to begin: that one has the longest time for
        it, counted from now and not from a renewal of a while ago.
        """
        self.observer.ending = True
        self.bell.ring()
        await self._ended.wait()

    async def step(self) -> Decision:
        """One look, one decision, carried out."""
        view = await self.observer.view(self.memory)
        self.leases.alone = namesake(view) is None
        decision = _decided(view)
        outcomes = await self.executor.act(decision)
        self._journal.write(view, decision, outcomes)
        self.memory = remembered(view, decision, outcomes)
        self.view, self.decision = view, decision
        self.looked.set()
        if view.ending:
            self._on_last_look()
        if any(done.error is not None for done in outcomes):
            return replace(decision, wake_s=min(decision.wake_s, 0.1))
        return decision

    def _on_last_look(self) -> None:
        self._last_looks += 1
        if self._last_looks < _LAST_LOOKS:
            self.bell.ring()
        else:
            self._ended.set()

    async def _listen_to_store(self) -> None:
        """A change in the store wakes the loop; it is never evidence (S1)."""
        prefix = keys.prefix(self._hands.cluster)
        own = keys.member(self._hands.cluster, self._me)
        while True:
            try:
                if self.tracker.revision:
                    async for changes in self._hands.store.watch(prefix, self.tracker.revision + 1):
                        if not changes or any(change.key != own for change in changes):
                            self.bell.ring()
            except StoreError as failure:
                _log.info("watch ended", why=str(failure))
            await asyncio.sleep(_RELISTEN_S)

    async def _beat(self) -> None:
        """Heartbeats: ours, and those of the fence, which a new fence has to be told of."""
        pulse = self._hands.pulse
        if pulse is None:
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pulse.run(self.leases))
            fence = self._hands.fence
            if fence is not None:
                tasks.create_task(self.leases.extend(fence))
            while fence is not None:
                try:
                    await fence.send_heartbeats(pulse.targets)
                except FenceError as failure:
                    _log.debug("the fence sends no heartbeats", why=str(failure))
                await asyncio.sleep(_TELL_FENCE_S)

    async def _listen_to_fence(self) -> None:
        """An exit of the postmaster wakes the loop at once."""
        while self._hands.fence is not None:
            try:
                async for event in self._hands.fence.events():
                    _log.info("the fence says", news=str(event))
                    if not self._stop_will_tell(event):
                        self.bell.ring()
            except FenceError as failure:
                _log.info("the fence does not answer", why=str(failure))
            await asyncio.sleep(_RELISTEN_S)

    def _stop_will_tell(self, event: FenceEvent) -> bool:
        """A stop of ours waits for just that, and rings when it is over: a look before its end
        could only wait for it, and would make the look that matters late."""
        job = self.jobs.running
        stops = job is not None and job.kind == JobKind.STOP
        return stops and isinstance(event, Exited | TreeEmpty)


def _decided(view: View) -> Decision:
    """What `decide` says; nothing, when what it says breaks a rule of its own (a bug of ours).

    A leader that does nothing is fenced at its deadline, and a standby takes over: the safe end.
    """
    try:
        return decide(view)
    except AssertionError as broken:
        _log.exception("a decision broke an invariant; nothing is done")
        problem = f"FM698: a decision broke an invariant: {broken}"
        return Decision("bug: nothing", problem, (), view.memory, _BROKEN_S, problem)


def remembered(view: View, decision: Decision, outcomes: tuple[Done, ...]) -> Memory:
    """What was decided is remembered only as far as it was done."""
    failed = [done.action for done in outcomes if done.error is not None]
    if not failed:
        return decision.memory
    published, published_s = view.memory.published, view.memory.published_s
    if all(isinstance(action, Publish) for action in failed):
        return replace(decision.memory, published=published, published_s=published_s)
    if any(isinstance(done.action, Promote) for done in outcomes):
        # Whatever failed, Postgres may have been asked: its patience counts from here.
        since_s = decision.memory.promoting_since_s
        return replace(view.memory, promote_asked=True, promoting_since_s=since_s)
    return view.memory
