"""The Store port over a simulated etcd: linearizable, and as unhelpful as a real one.

Three members, one of them leading.  A request is answered when its client reaches a
member that reaches the leader, and that has a majority; a lost leader is replaced after
one to two seconds.  What a client is not told of may have been carried out, may never be,
or may be carried out much later.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from flightmode.errors import StoreUnknown
from flightmode.model.placement import Placement
from flightmode.store.memory import MemoryCluster, MemoryStore
from flightmode.store.port import Change, Compare, Op, Snapshot, Txn
from simulator.host import Host
from simulator.network import Network

DEADLINE_S = 1.0
_KEPT_REVISIONS = 30
UNTIL_OVERTAKEN_S = float("inf")
"""Of a commit that is held up until a later one to the same key arrives."""

T = TypeVar("T")
Carried = Callable[["SimStore", float, tuple[Compare, ...], tuple[Op, ...], Txn], None]


@dataclass
class Moods:
    """How the store treats its clients: chances per request, changed by faults."""

    unknown: float = 0.0
    """A commit's outcome is not told."""
    late: float = 0.0
    """Of those: it is carried out later, in up to `late_s`."""
    late_s: float = 8.0
    silent: float = 0.0
    """A read is not answered."""
    slow_s: float = 0.0
    """Every request takes up to so much longer."""


class Etcd:
    """The members and the keys."""

    def __init__(self, network: Network, members: tuple[str, ...], dice: Random) -> None:
        self.network = network
        self.loop = network.hosts[members[0]].loop
        self.members = members
        self.dice = dice
        self.keys = MemoryCluster()
        self.moods = Moods()
        self.applied = dict.fromkeys(members, self.keys.snapshot(""))
        """What each member has applied: one that does not reach the leader stays behind."""
        self.hold: Callable[[tuple[Op, ...]], float | None] = lambda _: None
        """Which commits are held up for so long; what became of them is not told."""
        self.held: tuple[str, Callable[[], object]] | None = None
        """A commit that was held up, and the key that it is about."""
        self.overtaken: Callable[[], None] = lambda: None
        """It was carried out, right before the one that it should have preceded by far."""
        self.down: set[str] = set()
        """Members whose process does not run."""
        self.leader: str | None = members[-1]
        self.carried_out: Carried = lambda *_: None
        self.asked: Callable[[SimStore, tuple[Op, ...]], None] = lambda *_: None
        """A client wants this carried out."""
        self.told: Callable[[SimStore, tuple[Op, ...], bool], None] = lambda *_: None
        """A client got the answer that its commit was done, or that nothing is known."""
        self._electing = False
        self._answering: dict[str, bool] = {}

    def works(self, member: str) -> bool:
        host = self.network.hosts[member]
        # A member writes each entry to its disk before it says a word about it.
        return host.up and not host.frozen and not host.stalled and member not in self.down

    def look(self) -> None:
        """After any change of the world: a leader without a majority is replaced."""
        self._answering.clear()
        self._apply()
        if self._leads(self.leader) or self._electing:
            return
        self._electing = True
        self.loop.call_later(self.dice.uniform(1.0, 2.0), self._elect)

    def _elect(self) -> None:
        self._electing = False
        self._answering.clear()
        if self._leads(self.leader):
            return
        able = [member for member in self.members if self._leads(member)]
        self.leader = self.dice.choice(able) if able else None
        if self.leader is None:
            self._electing = True
            self.loop.call_later(0.5, self._elect)

    def _apply(self) -> None:
        leader = self.leader
        if leader is None or not self._leads(leader):
            return
        now = self.keys.snapshot("")
        for member in self.members:
            if self.works(member) and self.network.talk(member, leader):
                self.applied[member] = now

    def reached_by(self, client: str) -> list[str]:
        """Members that answer that host by themselves, whether or not they know the latest."""
        talk = self.network.talk
        return [each for each in self.members if self.works(each) and talk(client, each)]

    def _leads(self, member: str | None) -> bool:
        """Whether that member has a majority."""
        if member is None or not self.works(member):
            return False
        followers = [m for m in self.members if self.works(m) and self.network.talk(member, m)]
        return len(followers) * 2 > len(self.members)

    def answers(self, client: str) -> bool:
        """Whether a request of that host would be answered now."""
        if client not in self._answering:
            self._answering[client] = self._answers(client)
        return self._answering[client]

    def _answers(self, client: str) -> bool:
        leader = self.leader
        if not self._leads(leader):
            return False
        assert leader is not None
        return any(
            self.works(member)
            and self.network.talk(client, member)
            and self.network.talk(member, leader)
            for member in self.members
        )

    def move(self, member: str) -> None:
        """Its leader hands over to that member, if it can lead."""
        if self._leads(self.leader) and self._leads(member):
            self.leader = member
            self.look()

    def carry_out(
        self,
        client: "SimStore",
        sent_s: float,
        compares: tuple[Compare, ...],
        ops: tuple[Op, ...],
    ) -> Txn:
        if self.held is not None and any(op.key == self.held[0] for op in ops):
            (_, act), self.held = self.held, None
            act()
            self.loop.call_soon(self.overtaken)
        txn = self.keys.commit(compares, ops)
        self.carried_out(client, sent_s, compares, ops, txn)
        self._apply()
        if self.keys.revision - self.keys.compacted > 2 * _KEPT_REVISIONS:
            self.keys.compact(self.keys.revision - _KEPT_REVISIONS)
        return txn


class SimStore:
    """One agent's client; a `Store`."""

    def __init__(self, etcd: Etcd, host: Host, gate: Callable[[], Any]) -> None:
        self.host = host
        self.node = host.name
        self.life = host.life
        self._etcd = etcd
        self._gate = gate
        self._watch = MemoryStore(etcd.keys)

    async def read(self, prefix: str, *, serializable: bool = False) -> Snapshot:
        """`serializable`: what some member has applied, as etcd answers who does not ask for more.

        The port knows no such read; a planted bug does.
        """
        await self._gate()
        if serializable:
            return await self._read_of_any(prefix)
        lost = self._etcd.dice.random() < self._etcd.moods.silent
        return await self._ask(lambda: self._etcd.keys.snapshot(prefix), lost=lost)

    async def _read_of_any(self, prefix: str) -> Snapshot:
        members = self._etcd.reached_by(self.node)
        await self._etcd.loop.sleep(self._travel_s() if members else DEADLINE_S)
        await self._gate()
        if not members:
            raise StoreUnknown("no member of etcd answered in time")
        known = self._etcd.applied[self._etcd.dice.choice(members)]
        entries = {key: entry for key, entry in known.entries.items() if key.startswith(prefix)}
        return Snapshot(known.revision, entries)

    async def commit(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> Txn:
        self._etcd.asked(self, ops)
        try:
            txn = await self._commit(compares, ops)
        except StoreUnknown:
            self._etcd.told(self, ops, False)
            raise
        if txn.succeeded:
            self._etcd.told(self, ops, True)
        return txn

    async def _commit(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> Txn:
        sent_s = self.host.clock.now_s()
        await self._gate()
        etcd = self._etcd

        def act() -> Txn:
            return etcd.carry_out(self, sent_s, compares, ops)

        held_s = etcd.hold(ops)
        if held_s == UNTIL_OVERTAKEN_S:
            etcd.held = (ops[0].key, act)
            return await self._ask(act, lost=True, told=True)
        if held_s is not None:
            etcd.loop.after(held_s, self._late, act)
            return await self._ask(act, lost=True, told=True)
        if etcd.dice.random() >= etcd.moods.unknown:
            return await self._ask(act, lost=False)
        fate = etcd.dice.random()
        if fate < etcd.moods.late:
            etcd.loop.after(etcd.dice.uniform(0.0, etcd.moods.late_s), self._late, act)
        elif fate < 0.5 + etcd.moods.late / 2 and etcd.answers(self.node):
            etcd.loop.after(self._travel_s(), act)
        return await self._ask(act, lost=True)

    def _late(self, act: Callable[[], Txn]) -> None:
        """Held up inside etcd: carried out once there is a leader to do it."""
        if self._etcd._leads(self._etcd.leader):
            act()
        else:
            self._etcd.loop.after(0.5, self._late, act)

    async def _ask(self, act: Callable[[], T], *, lost: bool, told: bool = False) -> T:
        """There, carried out, and back; or not.  Raises StoreUnknown."""
        etcd, loop = self._etcd, self._etcd.loop
        reply: asyncio.Future[T] = loop.create_future()
        if not lost:
            loop.after(self._travel_s(), self._arrive, act, reply)
            end_s = DEADLINE_S
        else:
            end_s = DEADLINE_S if etcd.dice.random() < 0.5 and not told else self._travel_s()
        loop.after(end_s, _give_up, reply)
        try:
            return await reply
        finally:
            await self._gate()

    def _travel_s(self) -> float:
        dice, moods = self._etcd.dice, self._etcd.moods
        return 0.0005 + 0.002 * dice.random() + moods.slow_s * dice.random()

    def _arrive(self, act: Callable[[], T], reply: "asyncio.Future[T]") -> None:
        if self.host.life != self.life or not self._etcd.answers(self.node):
            return
        answer = act()
        self._etcd.loop.after(self._travel_s(), self._return, answer, reply)

    def _return(self, answer: T, reply: "asyncio.Future[T]") -> None:
        if not reply.done() and self._etcd.answers(self.node):
            reply.set_result(answer)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[tuple[Change, ...]]:
        """News travels; to whom etcd does not answer it comes later."""
        async for changes in self._watch.watch(prefix, from_revision):
            await self._etcd.loop.sleep(self._travel_s())
            while not self._etcd.answers(self.node):
                await self._etcd.loop.sleep(0.3)
            await self._gate()
            yield changes

    async def close(self) -> None:
        await self._watch.close()


class SimPlacing:
    """One agent's way to move etcd's leader; a `Placing`."""

    def __init__(self, etcd: Etcd, gate: Callable[[], Any]) -> None:
        self._etcd = etcd
        self._gate = gate

    async def look(self) -> Placement:
        await self._gate()
        well = tuple(member for member in self._etcd.members if self._etcd.works(member))
        return Placement(self._etcd.leader, well)

    async def move(self, node: str) -> None:
        await self._gate()
        self._etcd.move(node)


def _give_up(reply: "asyncio.Future[Any]") -> None:
    if not reply.done():
        reply.set_exception(StoreUnknown("etcd did not answer in time"))
