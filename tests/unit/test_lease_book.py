"""S6 in the agent: a promise and a claim never cross, and a promise reaches the fence."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from flightmode.agent.act import Executor
from flightmode.agent.bell import Bell
from flightmode.agent.hands import Hands
from flightmode.agent.job import JobRunner
from flightmode.agent.lease import LeaseBook
from flightmode.decide.answer import answer
from flightmode.errors import StoreUnknown
from flightmode.model.action import LiftFence, SwapState
from flightmode.model.cluster import ClusterState, Handover, Mode
from flightmode.model.lease import Leased
from flightmode.model.view import Renewed
from flightmode.store import codec, keys
from flightmode.store.memory import MemoryCluster, MemoryStore
from flightmode.store.port import Compare, Op, Put, Txn
from flightmode.store.tracker import Tracker
from tests.unit.decide.worlds import POLICY, SYNC, follower

CLUSTER = "test"


@dataclass
class Clock:
    at_s: float = 100.0

    def now_s(self) -> float:
        return self.at_s

    def wall_s(self) -> float:
        return self.at_s


class Sick(MemoryStore):
    """An etcd that can fall silent, also after it has taken a request."""

    silent = False

    async def read(self, prefix: str) -> object:  # type: ignore[override]
        if self.silent:
            raise StoreUnknown("silent")
        return await super().read(prefix)

    async def commit(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> Txn:
        if self.silent:
            raise StoreUnknown("silent")
        return await super().commit(compares, ops)


@dataclass
class Node:
    """fra's agent, as far as promises and claims go."""

    clock: Clock = field(default_factory=Clock)
    etcd: MemoryCluster = field(default_factory=MemoryCluster)

    def __post_init__(self) -> None:
        self.store = Sick(self.etcd)
        self.tracker = Tracker(self.store, CLUSTER, self.clock.now_s)
        self.book = LeaseBook("fra", POLICY, self.tracker, self.clock)
        hands = Hands(self.clock, self.store, CLUSTER, None, None)
        jobs = JobRunner(self.clock, Bell())
        self.executor = Executor("fra", hands, self.tracker, jobs, self.book)

    def agreed(self, state: ClusterState) -> None:
        self.etcd.commit((), (Put(keys.state(CLUSTER), codec.dump(state)),))

    async def know(self) -> None:
        """Two looks with a renewal between them."""
        self.agreed(SYNC)
        await self.tracker.read()
        self.agreed(replace(SYNC, renewal=41))
        await self.tracker.read()

    async def fall_silent(self) -> None:
        self.store.silent = True
        await self.tracker.read()

    async def claim(self) -> str | None:
        """What became of it."""
        revision = self.tracker.view.state_revision
        state = replace(SYNC, term=4, leader="fra", mode=Mode.SOLO, sync=(), renewal=42)
        swap = SwapState("claim", revision, state)
        (done,) = await self.executor.act(answer(follower(), "x", "y", swap))
        return done.error


async def test_a_promise_is_given_while_etcd_is_silent_and_stands_for_the_ttl() -> None:
    node = Node()
    await node.know()
    assert node.book.asked("ams", 3) is None
    await node.fall_silent()
    assert node.book.asked("ams", 3) == POLICY.ttl_s
    assert node.book.granted_until_s == 105.0
    node.clock.at_s = 104.9
    assert node.book.promised
    node.clock.at_s = 105.0
    assert not node.book.promised


async def test_a_claim_that_was_decided_before_the_promise_is_not_sent() -> None:
    node = Node()
    await node.know()
    await node.fall_silent()
    assert node.book.asked("ams", 3) is not None
    node.store.silent = False
    assert "promised" in (await node.claim() or "")
    node.clock.at_s += POLICY.ttl_s
    assert await node.claim() is None


async def test_a_handover_is_taken_whatever_was_promised() -> None:
    node = Node()
    await node.know()
    await node.fall_silent()
    assert node.book.asked("ams", 3) is not None
    node.store.silent = False
    node.agreed(replace(SYNC, handover=Handover("fra", "died")))
    await node.tracker.read()
    assert await node.claim() is None


async def test_nothing_is_promised_beside_a_machine_of_the_same_name() -> None:
    """It is the other one that would have to keep it."""
    node = Node()
    await node.know()
    await node.fall_silent()
    node.book.alone = False
    assert node.book.asked("ams", 3) is None


async def test_nothing_is_promised_while_a_claim_is_in_doubt() -> None:
    node = Node()
    await node.know()
    node.store.silent = True
    assert "silent" in (await node.claim() or "")
    assert node.book.asked("ams", 3) is None, "before the next look"
    await node.fall_silent()
    assert node.book.asked("ams", 3) is None
    node.store.silent = False
    node.agreed(replace(SYNC, renewal=43))
    await node.tracker.read()
    await node.fall_silent()
    assert node.book.asked("ams", 3) is not None, "the leader has renewed: that claim is lost"


async def test_nothing_is_promised_while_a_claim_is_under_way() -> None:
    node = Node()
    await node.know()
    await node.fall_silent()
    with node.book.claiming():
        assert node.book.asked("ams", 3) is None
    assert node.book.asked("ams", 3) is not None


async def test_an_agent_that_is_new_promises_nothing_before_it_saw_a_renewal() -> None:
    node = Node()
    node.agreed(SYNC)
    await node.tracker.read()
    await node.fall_silent()
    assert node.book.asked("ams", 3) is None


async def extended(node: Node, promises: tuple[Leased, ...]) -> list[tuple[int, float]]:
    """What the fence of a leader is told of these promises."""
    node.agreed(replace(SYNC, leader="fra", sync=("ams",)))
    await node.tracker.read()
    told: list[tuple[int, float]] = []

    class Fence:
        async def extend(self, term: int, deadline_s: float) -> None:
            told.append((term, deadline_s))

    task = asyncio.create_task(node.book.extend(Fence()))  # type: ignore[arg-type]
    try:
        for leased in promises:
            node.book.granted(leased)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return told


async def test_a_promise_extends_the_fence_at_once_and_only_forward() -> None:
    promises = (
        Leased("ams", 3, 99.0, 5.0),
        Leased("ams", 3, 98.0, 5.0),
        Leased("ams", 2, 99.5, 5.0),
        Leased("lhr", 3, 99.6, 5.0),
        Leased("ams", 3, 99.9, 5.0),
    )
    told = await extended(Node(), promises)
    assert told == [(3, pytest.approx(103.5)), (3, pytest.approx(104.4))]


async def test_a_promise_gives_no_deadline_to_who_is_alone() -> None:
    node = Node()
    node.tracker.renewed = Renewed(3, 99.9, solo=True)
    assert await extended(node, (Leased("ams", 3, 99.0, 5.0),)) == []


class SlowFence:
    """Carries out what it is asked for a while after it was asked, each in its own time."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.asked = asyncio.Event()
        self.extends = asyncio.Event()

    async def extend(self, term: int, deadline_s: float) -> None:
        self.asked.set()
        await self.extends.wait()
        self.told.append("extend")

    async def lift(self, term: int) -> None:
        self.told.append("lift")


async def test_a_promise_on_its_way_to_the_fence_does_not_overtake_the_lift() -> None:
    """Else a leader that is alone has a deadline again, and etcd may fall silent next (I6)."""
    node, fence = Node(), SlowFence()
    node.agreed(replace(SYNC, leader="fra", sync=("ams",)))
    await node.tracker.read()
    hands = Hands(node.clock, node.store, CLUSTER, None, fence)  # type: ignore[arg-type]
    executor = Executor("fra", hands, node.tracker, JobRunner(node.clock, Bell()), node.book)
    extending = asyncio.create_task(node.book.extend(fence))  # type: ignore[arg-type]
    node.book.granted(Leased("ams", 3, 99.0, 5.0))
    await fence.asked.wait()
    node.tracker.renewed = Renewed(3, 99.9, solo=True)
    lifting = asyncio.create_task(executor.act(answer(follower(), "x", "y", LiftFence(3))))
    await asyncio.sleep(0)
    fence.extends.set()
    (done,) = await lifting
    extending.cancel()
    await asyncio.gather(extending, return_exceptions=True)
    assert done.error is None
    assert fence.told == ["extend", "lift"]
