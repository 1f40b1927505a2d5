"""The simulated etcd does what the real one does: the same scripts on both, the same trace."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Protocol

import pytest
import pytest_asyncio

from flightmode.errors import StoreUnknown
from flightmode.store.etcd import EtcdStore
from flightmode.store.port import Compare, Delete, Put, Store, Txn
from simulator.history import History
from simulator.loop import VirtualLoop
from simulator.node import SimNode
from simulator.store import SimStore
from simulator.weather import fair
from simulator.world import NODES, World
from tests.integration.etcd_cluster import ETCD, EtcdCluster

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not ETCD, reason="etcd is not installed"),
]
Trace = list[str]
Script = Callable[["Members"], Awaitable[Trace]]
_WITHIN_S = 15.0
_prefixes = itertools.count()


class Members(Protocol):
    """Three members and a client on the host of each."""

    prefix: str

    def client(self, number: int) -> Store: ...

    async def stop(self, number: int) -> None: ...

    async def go_on(self, number: int) -> None: ...

    async def compact(self, revision: int) -> None: ...


class RealMembers:
    """etcd; a stopped member is one that got SIGSTOP."""

    def __init__(self, etcd: EtcdCluster) -> None:
        self.prefix = f"/t{next(_prefixes)}/"
        self._etcd = etcd
        self._clients = [
            EtcdStore(etcd.endpoints(i), etcd.client_tls(), clock=time.monotonic)
            for i in range(len(NODES))
        ]

    def client(self, number: int) -> Store:
        return self._clients[number]

    async def stop(self, number: int) -> None:
        self._etcd.stop(number)

    async def go_on(self, number: int) -> None:
        self._etcd.cont(number)

    async def compact(self, revision: int) -> None:
        await self._etcd.compact(revision)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


class SimMembers:
    """The simulator's."""

    def __init__(self, seed: int) -> None:
        self.prefix = "/t/"
        self._world = World(seed, fair(), History())
        self._clients = [self._client(self._world.nodes[name]) for name in NODES]

    def _client(self, node: SimNode) -> SimStore:
        async def at_once() -> None:
            return

        return SimStore(self._world.etcd, node.host, at_once)

    def client(self, number: int) -> Store:
        return self._clients[number]

    async def stop(self, number: int) -> None:
        self._world.etcd.down.add(NODES[number])
        self._world.etcd.look()

    async def go_on(self, number: int) -> None:
        self._world.etcd.down.discard(NODES[number])
        self._world.etcd.look()

    async def compact(self, revision: int) -> None:
        self._world.etcd.keys.compact(revision)


# ------------------------------------------------------------------ scripts


async def one_of_two_swaps_wins(members: Members) -> Trace:
    one, other, key = members.client(0), members.client(1), f"{members.prefix}state"
    made = await one.commit((Compare(key, 0),), (Put(key, b"first"),))
    again = await other.commit((Compare(key, 0),), (Put(key, b"again"),))
    both = await asyncio.gather(
        one.commit((Compare(key, made.revision),), (Put(key, b"one"),)),
        other.commit((Compare(key, made.revision),), (Put(key, b"other"),)),
    )
    late = await one.commit((Compare(key, made.revision),), (Put(key, b"late"),))
    won = sorted(txn.succeeded for txn in both)
    return [_said(made, made), _said(again, made), f"won: {won}", _said(late, made)]


async def what_was_confirmed_is_read_by_everybody(members: Members) -> Trace:
    trace, key = [], f"{members.prefix}row"
    for number in range(6):
        writer, reader = members.client(number % 3), members.client((number + 1) % 3)
        txn = await writer.commit((), (Put(key, str(number).encode()),))
        snapshot = await reader.read(members.prefix)
        entry = snapshot.entries[key]
        current = entry.mod_revision == txn.revision and snapshot.revision >= txn.revision
        trace.append(f"{entry.value.decode()}, current: {current}")
    return trace


async def the_keys_of_one_swap_change_together(members: Members) -> Trace:
    client, prefix = members.client(0), members.prefix
    first = await client.commit((), (Put(f"{prefix}a", b"1"), Put(f"{prefix}b", b"1")))
    await client.commit((), (Put(f"{prefix}b", b"2"), Delete(f"{prefix}a")))
    seen: dict[int, list[str]] = {}
    async with asyncio.timeout(_WITHIN_S):
        async for changes in members.client(1).watch(prefix, first.revision):
            # A batch may hold several revisions, and holds all of each.
            assert not seen.keys() & {change.mod_revision for change in changes}
            for change in changes:
                told = f"{change.key[-1]}={change.value!r}"
                seen.setdefault(change.mod_revision, []).append(told)
            if len(seen) == 2:
                break
    return [" ".join(sorted(seen[revision])) for revision in sorted(seen)]


async def a_watch_from_before_a_compaction_has_a_gap(members: Members) -> Trace:
    client, key = members.client(0), f"{members.prefix}k"
    first = await client.commit((), (Put(key, b"1"),))
    second = await client.commit((), (Put(key, b"2"),))
    await client.commit((), (Put(key, b"3"),))
    await members.compact(second.revision + 1)
    trace: Trace = []
    async with asyncio.timeout(_WITHIN_S):
        async for changes in members.client(1).watch(members.prefix, first.revision):
            trace.append(" ".join(f"{change.value!r}" for change in changes) or "a gap")
            if len(trace) == 2:
                return trace
    return trace


async def one_member_less_is_nothing(members: Members) -> Trace:
    await members.stop(2)
    trace = [await _settled(members, 0, b"1"), await _read(members, 1)]
    await members.go_on(2)
    return [*trace, await _settled(members, 2, b"2"), await _read(members, 0)]


async def without_a_majority_nothing_is_known(members: Members) -> Trace:
    """No answer says that a swap was lost; it may be carried out when the others are back."""
    client, key = members.client(0), f"{members.prefix}k"
    txn = await client.commit((), (Put(key, b"before"),))
    for number in (1, 2):
        await members.stop(number)
    trace = [await _known(client.commit((Compare(key, txn.revision),), (Put(key, b"in doubt"),)))]
    trace.append(await _known(client.read(members.prefix)))
    for number in (1, 2):
        await members.go_on(number)
    found = await _read(members, 0)
    return [*trace, "either" if found in ("before", "in doubt") else found]


async def _known(work: Awaitable[object]) -> str:
    began_s = asyncio.get_running_loop().time()
    try:
        await work
    except StoreUnknown:
        took_s = asyncio.get_running_loop().time() - began_s
        return "unknown, in time" if took_s < 2.0 else f"unknown, after {took_s:.1f} s"
    return "known"


async def _settled(members: Members, number: int, value: bytes) -> str:
    """Put it until that is confirmed: a leader that is gone is replaced in a while."""
    async with asyncio.timeout(_WITHIN_S):
        while True:
            try:
                put = Put(f"{members.prefix}k", value)
                txn = await members.client(number).commit((), (put,))
            except StoreUnknown:
                await asyncio.sleep(0.1)
                continue
            return f"done: {txn.succeeded}"


async def _read(members: Members, number: int) -> str:
    async with asyncio.timeout(_WITHIN_S):
        while True:
            try:
                snapshot = await members.client(number).read(members.prefix)
            except StoreUnknown:
                await asyncio.sleep(0.1)
                continue
            return snapshot.entries[f"{members.prefix}k"].value.decode()


def _said(txn: Txn, first: Txn) -> str:
    return f"{'done' if txn.succeeded else 'lost'} at +{txn.revision - first.revision}"


SCRIPTS: dict[Script, Trace] = {
    one_of_two_swaps_wins: ["done at +0", "lost at +0", "won: [False, True]", "lost at +1"],
    what_was_confirmed_is_read_by_everybody: [f"{n}, current: True" for n in range(6)],
    the_keys_of_one_swap_change_together: ["a=b'1' b=b'1'", "a=None b=b'2'"],
    a_watch_from_before_a_compaction_has_a_gap: ["a gap", "b'3'"],
    one_member_less_is_nothing: ["done: True", "1", "done: True", "2"],
    without_a_majority_nothing_is_known: ["unknown, in time", "unknown, in time", "either"],
}
NAMES = [script.__name__ for script in SCRIPTS]


@pytest.fixture(scope="module")
def three() -> Iterator[EtcdCluster]:
    cluster = EtcdCluster(3)
    try:
        asyncio.run(cluster.start())
        yield cluster
    finally:
        asyncio.run(cluster.close())


@pytest_asyncio.fixture
async def real(three: EtcdCluster) -> AsyncIterator[RealMembers]:
    await three.repair()
    members = RealMembers(three)
    yield members
    await members.close()
    await three.repair()


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
async def test_the_real_one(script: Script, real: RealMembers) -> None:
    assert await script(real) == SCRIPTS[script]


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_the_simulated_one(script: Script) -> None:
    for seed in range(20):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            found = runner.run(_simulated(script, seed))
        assert found == SCRIPTS[script], f"seed {seed}"


async def _simulated(script: Script, seed: int) -> Trace:
    return await script(SimMembers(seed))
