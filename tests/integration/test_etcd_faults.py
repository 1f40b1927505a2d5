"""The store's promises while etcd's members are killed, frozen, wiped, moved, and cut off."""

import asyncio
import base64
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from flightmode.errors import StoreRefused, StoreUnknown
from flightmode.model.placement import Placement
from flightmode.store.etcd import EtcdStore
from flightmode.store.etcd_members import EtcdHealth
from flightmode.store.etcd_placement import EtcdPlacement
from flightmode.store.port import Change, Compare, Put, Store, Txn
from tests.integration.etcd_cluster import ETCD, EtcdCluster, eventually

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not ETCD, reason="etcd is not installed"),
]

DEADLINE_S = 1.0
LATEST_S = DEADLINE_S + 0.2
SILENCE_S = 1.0
_numbers = itertools.count()

NewStore = Callable[..., EtcdStore]


@pytest.fixture(scope="module")
def three() -> Iterator[EtcdCluster]:
    cluster = EtcdCluster(3)
    try:
        asyncio.run(cluster.start())
        yield cluster
    finally:
        asyncio.run(cluster.close())


@pytest_asyncio.fixture
async def etcd(three: EtcdCluster) -> AsyncIterator[EtcdCluster]:
    """Three healthy members, of which member 1 leads."""
    await three.repair()
    await three.move_leader(1)
    yield three
    await three.close_links()


@pytest_asyncio.fixture
async def new_store(etcd: EtcdCluster) -> AsyncIterator[NewStore]:
    stores: list[EtcdStore] = []

    def new(*endpoints: str) -> EtcdStore:
        store = EtcdStore(
            endpoints or etcd.endpoints(),
            etcd.client_tls(),
            clock=time.monotonic,
            deadline_s=DEADLINE_S,
            silence_s=SILENCE_S,
        )
        stores.append(store)
        return store

    yield new
    for store in stores:
        await store.close()


@pytest.fixture
def prefix() -> str:
    return f"/faults/{next(_numbers)}/"


async def put(store: Store, key: str, value: bytes) -> int:
    return (await store.commit((), (Put(key, value),))).revision


async def value_of(store: Store, key: str) -> bytes | None:
    entry = (await store.read(key)).entries.get(key)
    return None if entry is None else entry.value


async def soon(what: str, ask: Callable[[], Awaitable[object]]) -> object:
    """Ask until the answer is true, taking "unknown" for "not yet"."""

    async def known() -> object:
        try:
            return await ask()
        except StoreUnknown:
            return None

    return await eventually(what, known, 15.0)


async def seconds(call: Awaitable[object]) -> tuple[float, BaseException | None]:
    """How long the call took, and the StoreUnknown that it ended in."""
    started_s = time.monotonic()
    try:
        await call
    except StoreUnknown as unknown:
        return time.monotonic() - started_s, unknown
    return time.monotonic() - started_s, None


@dataclass
class Watched:
    """What a watch in the background has told so far."""

    changes: list[Change] = field(default_factory=list)
    told_to_read_again: int = 0

    def revisions(self) -> list[int]:
        return [change.mod_revision for change in self.changes]

    async def until(self, revision: int, within_s: float = 10.0) -> None:
        async def there() -> bool:
            return revision in self.revisions()

        await eventually(f"the watch tells revision {revision}", there, within_s)


@asynccontextmanager
async def watching(store: Store, prefix: str, from_revision: int) -> AsyncIterator[Watched]:
    watched = Watched()

    async def follow() -> None:
        async for changes in store.watch(prefix, from_revision):
            watched.changes += changes
            watched.told_to_read_again += not changes

    task = asyncio.create_task(follow())
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# --------------------------------------------------------------------- kill -9


async def test_killing_the_member_we_talk_to_costs_neither_a_read_nor_a_write(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    store = new_store()
    await put(store, prefix + "k", b"before")
    etcd.kill(0)
    took_s, unknown = await seconds(store.read(prefix))
    assert unknown is None
    assert took_s < DEADLINE_S
    await put(store, prefix + "k", b"after")
    assert await value_of(store, prefix + "k") == b"after"


async def test_a_watch_loses_and_repeats_nothing_while_its_members_are_killed_in_turn(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    writer = new_store(etcd.endpoint(1))
    written = [await put(writer, prefix + "k", b"0")]
    async with watching(new_store(), prefix, written[0]) as watched:
        for victim in (0, 2):
            for i in range(30):
                written.append(await put(writer, prefix + f"{i}", b"x"))
                if i == 10:
                    await watched.until(written[5])
                    etcd.kill(victim)
            await etcd.restart(victim)
        await watched.until(written[-1])
    assert watched.revisions() == written
    assert watched.told_to_read_again == 0


# --------------------------------------------------------------------- SIGSTOP


async def test_a_frozen_member_delays_the_first_read_a_little_and_the_next_not_at_all(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    store = new_store()
    await store.read(prefix)
    etcd.stop(0)
    first_s, unknown = await seconds(store.read(prefix))
    assert unknown is None
    assert 0.2 <= first_s < 0.8
    later = [await seconds(store.read(prefix)) for _ in range(5)]
    assert min(took_s for took_s, _ in later) < 0.15
    assert all(unknown is None for _, unknown in later)


async def test_a_write_to_a_frozen_member_is_unknown_sent_once_and_may_happen_much_later(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    link = await etcd.link(0)
    store, other = new_store(link.url, *etcd.endpoints()[1:]), new_store(etcd.endpoint(1))
    revision = await put(store, prefix + "k", b"before")
    etcd.stop(0)
    late = b"late" * 1000
    swap = store.commit((Compare(prefix + "k", revision),), (Put(prefix + "k", late),))
    before = link.requested_bytes
    ending = asyncio.create_task(seconds(swap))

    async def sent() -> bool:
        """All of it: most of the request is its value."""
        return link.requested_bytes > before + len(base64.b64encode(late))

    await eventually("the request is on its way", sent)
    # From now on as on a dead network: the member will not hear that we hung up.
    link.requests.clear()
    link.answers.clear()
    took_s, unknown = await ending
    assert isinstance(unknown, StoreUnknown)
    assert took_s < LATEST_S
    snapshot = await other.read(prefix)
    assert snapshot.revision == revision, "nobody else was asked to do it"
    etcd.cont(0)

    async def happened() -> bool:
        return await value_of(other, prefix + "k") == late

    await eventually("the write of old happens after all", happened, 10.0)
    assert (await other.read(prefix)).entries[prefix + "k"].mod_revision == revision + 1


async def test_after_an_unknown_write_the_next_one_goes_to_another_member(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    store = new_store()
    await put(store, prefix + "k", b"1")
    etcd.stop(0)
    _, unknown = await seconds(put(store, prefix + "k", b"2"))
    assert unknown is not None
    took_s, unknown = await seconds(put(store, prefix + "k", b"3"))
    assert unknown is None
    assert took_s < 0.3, "it did not even try to connect to the frozen one"


async def test_a_write_whose_connection_is_never_made_is_done_elsewhere_and_once(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    etcd.stop(0)  # The kernel accepts the connection, but there is no TLS without the member.
    store = new_store()
    took_s, unknown = await seconds(put(store, prefix + "k", b"1"))
    assert unknown is None
    assert took_s < LATEST_S
    etcd.cont(0)
    await etcd.wait_healthy(0)
    snapshot = await new_store(etcd.endpoint(0)).read(prefix)
    assert snapshot.entries[prefix + "k"].mod_revision == snapshot.revision


async def test_a_watch_leaves_a_member_that_froze(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    writer = new_store(etcd.endpoint(1))
    written = [await put(writer, prefix + "k", b"0")]
    async with watching(new_store(), prefix, written[0]) as watched:
        await watched.until(written[0])
        etcd.stop(0)
        written += [await put(writer, prefix + "k", b"x") for _ in range(10)]
        await watched.until(written[-1], within_s=SILENCE_S + 2.0)
        etcd.cont(0)
        written += [await put(writer, prefix + "k", b"x") for _ in range(10)]
        await watched.until(written[-1])
    assert watched.revisions() == written


async def test_a_quiet_watch_stays_where_it_is(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    link = await etcd.link(0)
    store = new_store(link.url)
    revision = await put(store, prefix + "k", b"0")
    async with watching(store, prefix, revision) as watched:
        await watched.until(revision)
        await link.refuse()  # Whoever now connects again, fails for good.
        await asyncio.sleep(2.5 * SILENCE_S)
        later = await put(new_store(etcd.endpoint(1)), prefix + "k", b"1")
        await watched.until(later, within_s=0.5)


async def test_the_preferred_member_is_used_again_when_it_has_proved_itself(
    etcd: EtcdCluster, prefix: str
) -> None:
    now_s = 0.0
    link = await etcd.link(0)
    endpoints = (link.url, *etcd.endpoints()[1:])
    store = EtcdStore(endpoints, etcd.client_tls(), clock=lambda: now_s)

    async def write_through_link() -> bool:
        before = link.requested_bytes
        took_s, unknown = await seconds(put(store, prefix + "k", b"1"))
        assert unknown is None, "no write is risked on a member that may be frozen"
        assert took_s < 0.5
        return link.requested_bytes > before

    try:
        assert await write_through_link()
        etcd.stop(0)
        await store.read(prefix)
        now_s = 11.0
        await store.read(prefix)  # Asks the frozen one too, in vain.
        assert not await write_through_link()
        etcd.cont(0)
        await etcd.wait_healthy(0)
        assert not await write_through_link(), "it is not asked before the next probe"

        async def is_back() -> bool:
            nonlocal now_s
            now_s += 11.0
            await store.read(prefix)
            return await write_through_link()

        await eventually("the preferred member is back", is_back, 5.0)
    finally:
        await store.close()


# ----------------------------------------------------------- the network's lies


async def test_a_write_whose_answer_got_lost_is_unknown_though_done(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    link = await etcd.link(0)
    store, other = new_store(link.url), new_store(etcd.endpoint(1))
    revision = await put(store, prefix + "k", b"0")
    link.answers.clear()
    mine = ((Compare(prefix + "k", revision),), (Put(prefix + "k", b"1"),))
    took_s, unknown = await seconds(store.commit(*mine))
    assert unknown is not None
    assert took_s < LATEST_S
    assert await value_of(other, prefix + "k") == b"1"
    link.answers.set()
    again = await soon("the link works again", lambda: store.commit(*mine))
    assert again == Txn(succeeded=False, revision=revision + 1)


async def test_a_write_whose_connection_broke_after_it_was_done_is_never_told_as_lost(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    link = await etcd.link(0)
    store, other = new_store(link.url, *etcd.endpoints()[1:]), new_store(etcd.endpoint(1))
    revision = await put(store, prefix + "k", b"0")
    link.answers.clear()
    swap = store.commit((Compare(prefix + "k", revision),), (Put(prefix + "k", b"1"),))
    ending = asyncio.create_task(seconds(swap))

    async def happened() -> bool:
        return await value_of(other, prefix + "k") == b"1"

    await eventually("the write is done", happened)
    link.cut()
    took_s, unknown = await ending
    assert unknown is not None, "sent a second time, it would have lost against itself"
    assert took_s < DEADLINE_S


async def test_a_watch_that_was_cut_off_during_a_compaction_says_read_again(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    link = await etcd.link(0)
    writer = new_store(etcd.endpoint(1))
    written = [await put(writer, prefix + "k", b"0")]
    async with watching(new_store(link.url), prefix, written[0]) as watched:
        await watched.until(written[0])
        await link.refuse()
        link.cut()
        written += [await put(writer, prefix + "k", b"x") for _ in range(10)]
        await etcd.compact(written[5])
        await link.start()
        written.append(await put(writer, prefix + "k", b"last"))
        await watched.until(written[-1])
    assert watched.told_to_read_again == 1
    assert watched.revisions() == [written[0], *written[5:]]


# ------------------------------------------------------------ leader and quorum


async def test_moving_the_leader_hurts_no_one(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    store = new_store()
    health = {
        url: one
        for url, one in (await store.members.health()).items()
        if isinstance(one, EtcdHealth)
    }
    assert set(health) == set(etcd.endpoints())
    assert len({one.leader_id for one in health.values()}) == 1
    written = [await put(store, prefix + "k", b"0")]
    async with watching(store, prefix, written[0]) as watched:
        for url in etcd.endpoints():
            await store.members.move_leader(health[url].id)
            for _ in range(5):
                written.append(await put(store, prefix + "k", b"x"))

            async def leads(url: str = url) -> bool:
                found = (await store.members.health())[url]
                return isinstance(found, EtcdHealth) and found.id == found.leader_id

            await eventually(f"{url} leads", leads)
        await watched.until(written[-1])
    assert watched.revisions() == written
    assert {member.name for member in await store.members.list()} == {"m0", "m1", "m2"}


async def test_a_placement_speaks_of_nodes_and_moves_the_leader_between_them(
    etcd: EtcdCluster, new_store: NewStore
) -> None:
    store = new_store()
    names = dict(zip(etcd.endpoints(), ("ams", "fra", "wit"), strict=True))
    placement = EtcdPlacement(store.members, names)
    for name in names.values():
        await placement.move(name)

        async def leads(name: str = name) -> bool:
            return await placement.look() == Placement(name, ("ams", "fra", "wit"))

        await eventually(f"{name} leads", leads)


@pytest.mark.parametrize("fault", ["kill", "stop"])
async def test_without_a_quorum_every_call_is_unknown_by_its_deadline(
    etcd: EtcdCluster, new_store: NewStore, prefix: str, fault: str
) -> None:
    store = new_store()
    revision = await put(store, prefix + "k", b"0")
    async with watching(store, prefix, revision) as watched:
        for i in (1, 2):
            etcd.kill(i) if fault == "kill" else etcd.stop(i)
        for call in (lambda: store.read(prefix), lambda: put(store, prefix + "lost", b"?")) * 2:
            took_s, unknown = await seconds(call())
            assert unknown is not None
            assert not isinstance(unknown, StoreRefused)
            assert took_s < LATEST_S
        await etcd.repair()
        later = await soon("etcd works again", lambda: put(store, prefix + "k", b"1"))
        assert isinstance(later, int)
        await watched.until(later)


async def test_a_watch_leaves_a_member_that_has_lost_its_leader(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    link = await etcd.link(0)
    store = new_store(link.url)
    revision = await put(store, prefix + "k", b"0")
    async with watching(store, prefix, revision) as watched:
        await watched.until(revision)
        before = link.connections
        etcd.stop(1)
        etcd.stop(2)

        async def asks_anew() -> bool:
            return link.connections > before

        await eventually("the stream was ended, though progress is answered", asks_anew, 10.0)


async def test_a_leader_that_slept_through_its_own_deposition_can_not_tell_us_old_things(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    old, new = new_store(etcd.endpoint(1)), new_store(etcd.endpoint(0), etcd.endpoint(2))
    await put(old, prefix + "k", b"old")
    etcd.stop(1)
    await soon("another leader", lambda: put(new, prefix + "k", b"new"))
    etcd.stop(0)
    etcd.stop(2)
    etcd.cont(1)
    for _ in range(2):
        took_s, unknown = await seconds(old.read(prefix))
        assert unknown is not None, "it was believed"
        assert took_s < LATEST_S
    etcd.cont(0)
    etcd.cont(2)

    async def told() -> bool:
        assert await value_of(old, prefix + "k") == b"new"
        return True

    await soon("a read through the deposed leader", told)


async def test_a_member_that_lost_its_data_comes_back_and_serves(
    etcd: EtcdCluster, new_store: NewStore, prefix: str
) -> None:
    store, writer = new_store(), new_store(etcd.endpoint(1))
    written = [await put(store, prefix + "k", b"0")]
    async with watching(store, prefix, written[0]) as watched:
        await watched.until(written[0])
        await etcd.wipe(0)
        written += [await put(writer, prefix + "k", b"x") for _ in range(10)]
        await watched.until(written[-1])
    assert watched.revisions() == written
    assert await value_of(new_store(etcd.endpoint(0)), prefix + "k") == b"x"
    assert await value_of(store, prefix + "k") == b"x"


# ---------------------------------------------------------------- certificates


@pytest.mark.parametrize("whose", ["none", "a stranger's", "the server's"])
async def test_a_certificate_that_is_not_accepted_has_an_error_of_its_own_and_at_once(
    etcd: EtcdCluster, prefix: str, whose: str
) -> None:
    stranger = type(etcd.ca)()
    if whose == "the server's":
        tls = etcd.tls_of(etcd.ca, trust=stranger)
    else:
        tls = etcd.tls_of(None if whose == "none" else stranger)
    store = EtcdStore(etcd.endpoints(), tls, clock=time.monotonic)
    try:
        for call in (lambda: store.read(prefix), lambda: put(store, prefix + "k", b"x")):
            took_s, error = await seconds(call())
            assert isinstance(error, StoreRefused)
            assert (error.code, error.retry) == ("FM102", False)
            assert took_s < 0.8
    finally:
        await store.close()


# ------------------------------------------------------------------ all at once


@dataclass
class Tally:
    acknowledged: int = 0
    lost: int = 0
    unknown: int = 0
    longest_s: float = 0.0

    async def increment(self, store: Store, key: str) -> None:
        """Add one to the counter by compare-and-swap, and note how it ended."""
        started_s = time.monotonic()
        writing = False
        try:
            entry = (await store.read(key)).entries.get(key)
            revision, count = (entry.mod_revision, int(entry.value)) if entry else (0, 0)
            self._took(started_s)
            started_s, writing = time.monotonic(), True
            txn = await store.commit((Compare(key, revision),), (Put(key, b"%d" % (count + 1)),))
            self.acknowledged += txn.succeeded
            self.lost += not txn.succeeded
        except StoreUnknown:
            self.unknown += writing
        self._took(started_s)

    def _took(self, started_s: float) -> None:
        self.longest_s = max(self.longest_s, time.monotonic() - started_s)


async def torment(etcd: EtcdCluster, chance: random.Random, for_s: float) -> None:
    """One fault after another; mostly one member at a time, sometimes two."""
    ends_s = time.monotonic() + for_s
    while time.monotonic() < ends_s:
        victims = chance.sample(range(3), chance.choice((1, 1, 1, 2)))
        for i in victims:
            chance.choice((etcd.kill, etcd.stop))(i)
        await asyncio.sleep(chance.uniform(0.2, 2.0))
        await etcd.repair()
        await asyncio.sleep(chance.uniform(0.0, 0.5))


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_acknowledged_increment_is_lost_and_none_is_done_twice(
    etcd: EtcdCluster, new_store: NewStore, prefix: str, seed: int
) -> None:
    chance, tally, key = random.Random(seed), Tally(), prefix + "counter"
    stores = [new_store(*etcd.endpoints(i)) for i in range(3)]
    done = asyncio.Event()

    async def work(store: Store, pause_s: float) -> None:
        while not done.is_set():
            await tally.increment(store, key)
            await asyncio.sleep(pause_s)

    start = (await stores[0].read(prefix)).revision + 1
    async with watching(stores[1], prefix, start) as watched:
        workers = [asyncio.create_task(work(s, chance.uniform(0.0, 0.02))) for s in stores]
        await torment(etcd, chance, for_s=7.0)
        done.set()
        await asyncio.gather(*workers)
        snapshot = await stores[0].read(prefix)
        await watched.until(snapshot.entries[key].mod_revision)
    final = int(snapshot.entries[key].value)
    assert tally.acknowledged <= final <= tally.acknowledged + tally.unknown
    assert tally.acknowledged > 20
    assert tally.longest_s < LATEST_S
    told = [change.value for change in watched.changes][:final]
    assert told == [b"%d" % i for i in range(1, final + 1)]
