"""What every store promises, held against the one in memory and against a real etcd."""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from flightmode.errors import StoreUnknown
from flightmode.store.etcd import EtcdStore
from flightmode.store.memory import MemoryCluster, MemoryStore
from flightmode.store.port import MAX_OPS, Change, Compare, Delete, Put, Store
from tests.integration.etcd_cluster import ETCD, EtcdCluster

_numbers = itertools.count()


class World:
    """One store, as many clients as wanted, and a prefix of its own for each test."""

    def __init__(self, backend: MemoryCluster | EtcdCluster, prefix: str) -> None:
        self._backend = backend
        self.prefix = prefix
        self.clients: list[Store] = []

    def client(self) -> Store:
        store: Store
        if isinstance(self._backend, MemoryCluster):
            store = MemoryStore(self._backend)
        else:
            etcd = self._backend
            store = EtcdStore(etcd.endpoints(), etcd.client_tls(), clock=time.monotonic)
        self.clients.append(store)
        return store

    async def compact(self, revision: int) -> None:
        if isinstance(self._backend, MemoryCluster):
            self._backend.compact(revision)
        else:
            await self._backend.compact(revision)

    def key(self, name: str) -> str:
        return f"{self.prefix}{name}"

    async def set(self, store: Store, name: str, value: bytes = b"x") -> int:
        return (await store.commit((), (Put(self.key(name), value),))).revision


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    cluster = EtcdCluster(1)
    try:
        asyncio.run(cluster.start())
        yield cluster
    finally:
        asyncio.run(cluster.close())


@pytest.fixture(
    params=["memory", pytest.param("etcd", marks=pytest.mark.skipif(not ETCD, reason="no etcd"))]
)
def backend(request: pytest.FixtureRequest) -> MemoryCluster | EtcdCluster:
    if request.param == "memory":
        return MemoryCluster()
    cluster: EtcdCluster = request.getfixturevalue("etcd")
    return cluster


@pytest_asyncio.fixture
async def world(backend: MemoryCluster | EtcdCluster) -> AsyncIterator[World]:
    world = World(backend, f"/test/{next(_numbers)}/")
    yield world
    for client in world.clients:
        await client.close()


async def take(stream: AsyncIterator[tuple[Change, ...]], count: int) -> list[Change]:
    """The next `count` changes."""
    found: list[Change] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += await anext(stream)
    return found


# ------------------------------------------------------------------- reading


async def test_an_unknown_prefix_is_empty_but_has_a_revision(world: World) -> None:
    store = world.client()
    snapshot = await store.read(world.prefix)
    assert snapshot.entries == {}
    assert snapshot.revision >= 1


async def test_a_read_finds_what_lies_under_its_prefix_and_nothing_else(world: World) -> None:
    store = world.client()
    for name in ("a", "b/1", "b/2", "b0", "c"):
        await world.set(store, name)
    assert list((await store.read(world.key("b/"))).entries) == [world.key("b/1"), world.key("b/2")]
    assert list((await store.read(world.key("b"))).entries) == [
        world.key("b/1"),
        world.key("b/2"),
        world.key("b0"),
    ]


async def test_a_client_reads_what_another_one_wrote(world: World) -> None:
    one, other = world.client(), world.client()
    revision = await world.set(one, "k", b"v")
    snapshot = await other.read(world.prefix)
    entry = snapshot.entries[world.key("k")]
    assert (entry.key, entry.value, entry.mod_revision) == (world.key("k"), b"v", revision)
    assert snapshot.revision == revision


@pytest.mark.parametrize(
    "name", ["ä/ö", "日本/語", "🛫", "a b\n\t\"'\\", "\x01\x7f", "ÿ", "\U0010ffff"]
)
async def test_unicode_keys_and_their_prefixes_work(world: World, name: str) -> None:
    store = world.client()
    await world.set(store, name, name.encode())
    await world.set(store, "other")
    assert (await store.read(world.key(name))).entries[world.key(name)].value == name.encode()
    assert len((await store.read(world.key(name[:1]))).entries) == 1


async def test_keys_come_in_the_order_of_their_bytes(world: World) -> None:
    store = world.client()
    for name in ("\uffff", "\U00010000", "z", "a", "é"):
        await world.set(store, name)
    expected = [world.key(name) for name in ("a", "z", "é", "\uffff", "\U00010000")]
    assert list((await store.read(world.prefix)).entries) == expected


@pytest.mark.parametrize("value", [b"", b"\0", bytes(range(256)), os.urandom(1_000_000)])
async def test_values_are_any_bytes_up_to_a_megabyte(world: World, value: bytes) -> None:
    store = world.client()
    start = await world.set(store, "k", value)
    assert (await store.read(world.prefix)).entries[world.key("k")].value == value
    (change,) = await take(store.watch(world.prefix, start), 1)
    assert change == Change(world.key("k"), value, start)


# ------------------------------------------------------------------- writing


async def test_create_if_absent_succeeds_once(world: World) -> None:
    store = world.client()
    absent = (Compare(world.key("k"), 0),)
    first = await store.commit(absent, (Put(world.key("k"), b"1"),))
    second = await store.commit(absent, (Put(world.key("k"), b"2"),))
    assert (first.succeeded, second.succeeded) == (True, False)
    assert second.revision == first.revision
    assert (await store.read(world.prefix)).entries[world.key("k")].value == b"1"


async def test_a_swap_needs_the_latest_revision_of_the_key(world: World) -> None:
    store = world.client()
    first = await world.set(store, "k", b"1")
    await world.set(store, "unrelated")
    done = await store.commit((Compare(world.key("k"), first),), (Put(world.key("k"), b"2"),))
    lost = await store.commit((Compare(world.key("k"), first),), (Put(world.key("k"), b"3"),))
    entry = (await store.read(world.key("k"))).entries[world.key("k")]
    assert (done.succeeded, lost.succeeded) == (True, False)
    assert (entry.value, entry.mod_revision) == (b"2", done.revision)


async def test_a_swap_of_a_key_that_was_deleted_is_lost(world: World) -> None:
    store = world.client()
    first = await world.set(store, "k")
    await store.commit((), (Delete(world.key("k")),))
    lost = await store.commit((Compare(world.key("k"), first),), (Put(world.key("k"), b"2"),))
    assert not lost.succeeded
    assert (await store.read(world.prefix)).entries == {}


async def test_deleting_a_key_that_is_not_there_is_fine_and_changes_nothing(world: World) -> None:
    store = world.client()
    before = await world.set(store, "other")
    txn = await store.commit((), (Delete(world.key("k")),))
    assert txn.succeeded
    assert txn.revision == before


async def test_all_comparisons_must_hold_or_nothing_is_done(world: World) -> None:
    store = world.client()
    a, b = await world.set(store, "a"), await world.set(store, "b")
    ops = (Put(world.key("a"), b"new"), Delete(world.key("b")), Put(world.key("c"), b"new"))
    for wrong in (
        (Compare(world.key("a"), a), Compare(world.key("b"), b + 1)),
        (Compare(world.key("a"), a), Compare(world.key("c"), b)),
        (Compare(world.key("a"), 0), Compare(world.key("b"), b)),
    ):
        assert not (await store.commit(wrong, ops)).succeeded
    assert (await store.read(world.prefix)).revision == b
    right = (Compare(world.key("a"), a), Compare(world.key("b"), b), Compare(world.key("c"), 0))
    done = await store.commit(right, ops)
    assert done.succeeded
    entries = (await store.read(world.prefix)).entries
    assert {key: entry.mod_revision for key, entry in entries.items()} == {
        world.key("a"): done.revision,
        world.key("c"): done.revision,
    }


async def test_a_comparison_alone_tells_whether_it_holds(world: World) -> None:
    store = world.client()
    revision = await world.set(store, "k")
    assert (await store.commit((Compare(world.key("k"), revision),), ())).succeeded
    assert not (await store.commit((Compare(world.key("k"), revision - 1),), ())).succeeded


async def test_of_many_swaps_at_once_exactly_one_wins(world: World) -> None:
    clients = [world.client() for _ in range(4)]
    for _ in range(5):
        revision = await world.set(clients[0], "k")
        outcomes = await asyncio.gather(
            *(
                client.commit(
                    (Compare(world.key("k"), revision),),
                    (Put(world.key("k"), str(i).encode()),),
                )
                for i, client in enumerate(clients * 3)
            )
        )
        winners = [i for i, outcome in enumerate(outcomes) if outcome.succeeded]
        assert len(winners) == 1
        value = (await clients[1].read(world.key("k"))).entries[world.key("k")].value
        assert value == str(winners[0]).encode()


@pytest.mark.parametrize(
    ("compares", "ops"),
    [
        ((), (Put("k", b"1"), Put("k", b"2"))),
        ((), (Put("k", b"1"), Delete("k"))),
        ((), (Put("", b"1"),)),
        ((Compare("", 0),), ()),
        ((), tuple(Put(str(i), b"") for i in range(MAX_OPS + 1))),
    ],
)
async def test_a_transaction_no_store_could_do_is_a_bug_of_the_caller(
    world: World, compares: tuple[Compare, ...], ops: tuple[Put | Delete, ...]
) -> None:
    with pytest.raises(ValueError, match=r"transaction|key"):
        await world.client().commit(compares, ops)


async def test_as_many_operations_as_promised_fit_in_one_transaction(world: World) -> None:
    store = world.client()
    keys = [world.key(f"{i:03}") for i in range(MAX_OPS)]
    compares, ops = tuple(Compare(k, 0) for k in keys), tuple(Put(k, b"v") for k in keys)
    assert (await store.commit(compares, ops)).succeeded
    assert not (await store.commit(compares, ops)).succeeded
    assert list((await store.read(world.prefix)).entries) == keys


# ------------------------------------------------------------------ watching


async def test_a_watch_tells_past_and_coming_changes_in_order(world: World) -> None:
    store, other = world.client(), world.client()
    first = await world.set(store, "a", b"1")
    second = await world.set(store, "b", b"2")
    stream = store.watch(world.prefix, first)
    assert await take(stream, 2) == [
        Change(world.key("a"), b"1", first),
        Change(world.key("b"), b"2", second),
    ]
    deleted = (await other.commit((), (Delete(world.key("a")),))).revision
    assert await take(stream, 1) == [Change(world.key("a"), None, deleted)]


async def test_a_watch_ignores_keys_outside_of_its_prefix(world: World) -> None:
    store = world.client()
    start = await world.set(store, "b")
    for name in ("a/1", "b0", "b/1", "c"):
        last = await world.set(store, name)
    assert await take(store.watch(world.key("b/"), start), 1) == [
        Change(world.key("b/1"), b"x", last - 1)
    ]


async def test_a_watch_tells_one_transactions_changes_together(world: World) -> None:
    store = world.client()
    names = [world.key(f"{i}") for i in range(20)]
    done = await store.commit((), tuple(Put(name, b"x") for name in names))
    async with asyncio.timeout(10):
        changes = await anext(store.watch(world.prefix, done.revision))
    assert [change.key for change in changes] == names
    assert {change.mod_revision for change in changes} == {done.revision}


async def test_a_watch_from_the_next_revision_tells_only_what_is_new(world: World) -> None:
    store = world.client()
    old = await world.set(store, "k", b"old")
    stream = store.watch(world.prefix, old + 1)
    waiting = asyncio.ensure_future(anext(stream))
    new = await world.set(store, "k", b"new")
    async with asyncio.timeout(10):
        assert await waiting == (Change(world.key("k"), b"new", new),)


async def test_watches_from_every_revision_replay_the_rest_of_the_history(world: World) -> None:
    store = world.client()
    revisions = [await world.set(store, "k", str(i).encode()) for i in range(6)]
    for i, start in enumerate(revisions):
        found = await take(store.watch(world.prefix, start), 6 - i)
        assert [change.mod_revision for change in found] == revisions[i:]


async def test_a_watch_that_a_compaction_passed_by_says_read_again_and_goes_on(
    world: World,
) -> None:
    store = world.client()
    revisions = [await world.set(store, "k", str(i).encode()) for i in range(6)]
    await world.compact(revisions[3])
    stream = store.watch(world.prefix, revisions[0])
    async with asyncio.timeout(10):
        assert await anext(stream) == ()
    found = await take(stream, 3)
    assert [change.mod_revision for change in found] == revisions[3:]
    later = await world.set(store, "k", b"later")
    assert await take(stream, 1) == [Change(world.key("k"), b"later", later)]


async def test_a_compaction_behind_a_watch_does_not_disturb_it(world: World) -> None:
    store = world.client()
    revisions = [await world.set(store, "k", str(i).encode()) for i in range(3)]
    stream = store.watch(world.prefix, revisions[0])
    await take(stream, 3)
    await world.compact(revisions[2])
    later = await world.set(store, "k", b"later")
    assert await take(stream, 1) == [Change(world.key("k"), b"later", later)]


async def test_several_watches_of_one_client_each_tell_everything(world: World) -> None:
    store = world.client()
    start = await world.set(store, "k", b"0")
    streams = [store.watch(world.prefix, start) for _ in range(3)]
    takers = [asyncio.ensure_future(take(stream, 5)) for stream in streams]
    for i in range(1, 5):
        await world.set(store, "k", str(i).encode())
    for found in await asyncio.gather(*takers):
        assert [change.value for change in found] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_watch_begins_at_a_revision_that_exists(world: World) -> None:
    with pytest.raises(ValueError, match="revision 1"):
        await anext(world.client().watch(world.prefix, 0))


# ------------------------------------------------------------------- closing


async def test_a_closed_client_knows_nothing_and_may_be_closed_again(world: World) -> None:
    store = world.client()
    await world.set(store, "k")
    await store.close()
    await store.close()
    with pytest.raises(StoreUnknown):
        await store.read(world.prefix)
    with pytest.raises(StoreUnknown):
        await world.set(store, "k")


async def test_closing_the_client_ends_its_watches(world: World) -> None:
    store = world.client()
    start = await world.set(store, "k")
    stream = store.watch(world.prefix, start)
    await take(stream, 1)
    waiting = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(0)
    await store.close()
    async with asyncio.timeout(5):
        assert await waiting is None
