"""The store's promises kept in memory: for the simulator, and for tests of a single process.

One `MemoryCluster` is the store; each client of it is a `MemoryStore`.  There is
no clock and no chance in it: the same calls in the same order give the same
revisions and the same events.  Revisions count as etcd's do: an empty store is
at 1, each transaction that changes something adds one, and all of its keys get
that revision.
"""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator

from flightmode.errors import StoreUnknown
from flightmode.store.port import Change, Compare, Delete, Entry, Op, Put, Snapshot, Txn, check_txn


class MemoryCluster:
    """The shared keys and their history."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self._entries: dict[str, Entry] = {}
        self._order: list[str] | None = None
        """The keys in the order in which they are told; None: to be sorted anew."""
        self._taken: dict[str, Snapshot] = {}
        """What was read of this very revision: many read the same, and nobody writes in it."""
        self._changes: list[tuple[Change, ...]] = []
        """Those of each revision."""
        self._listeners: dict[asyncio.Event, None] = {}  # a dict: woken in a fixed order

    def snapshot(self, prefix: str) -> Snapshot:
        """Everything under `prefix` now, in the order of keys (by their bytes, as etcd does)."""
        taken = self._taken.get(prefix)
        if taken is None:
            if self._order is None:
                self._order = sorted(self._entries, key=str.encode)
            entries = {key: self._entries[key] for key in self._order if key.startswith(prefix)}
            taken = self._taken[prefix] = Snapshot(self.revision, entries)
        return taken

    def commit(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> Txn:
        """All or nothing, at once."""
        check_txn(compares, ops)
        if not all(self._holds(compare) for compare in compares):
            return Txn(False, self.revision)
        changes = tuple(change for op in ops if (change := self._apply(op)) is not None)
        if changes:
            self.revision += 1
            self._taken.clear()
            self._changes.append(changes)
            self._wake()
        return Txn(True, self.revision)

    def _holds(self, compare: Compare) -> bool:
        entry = self._entries.get(compare.key)
        return compare.mod_revision == (0 if entry is None else entry.mod_revision)

    def _apply(self, op: Op) -> Change | None:
        """Carry out `op` as part of the next revision; None if it changes nothing."""
        revision = self.revision + 1
        match op:
            case Put(key, value):
                if key not in self._entries:
                    self._order = None
                self._entries[key] = Entry(key, value, revision)
                return Change(key, value, revision)
            case Delete(key):
                gone = self._entries.pop(key, None)
                self._order = None
                return None if gone is None else Change(key, None, revision)

    def compact(self, revision: int) -> None:
        """Forget the changes before `revision`; watches that still need them get an empty tuple."""
        if not self.compacted < revision <= self.revision:
            raise ValueError(f"can't compact at {revision}: at {self.compacted}..{self.revision}")
        self.compacted = revision
        self._changes = self._changes[self._first(revision) :]
        self._wake()

    def changes(self, prefix: str, from_revision: int) -> tuple[tuple[Change, ...], ...]:
        """The known changes from `from_revision` on, one tuple per revision."""
        if from_revision > self.revision:
            return ()
        since = self._changes[self._first(from_revision) :]
        wanted = (tuple(one for one in each if one.key.startswith(prefix)) for each in since)
        return tuple(each for each in wanted if each)

    def _first(self, revision: int) -> int:
        """Where the changes of that revision are, or of the next one that is known."""
        return bisect_left(self._changes, revision, key=lambda each: each[0].mod_revision)

    def listen(self, event: asyncio.Event) -> None:
        """Set `event` at each change until `forget`."""
        self._listeners[event] = None

    def forget(self, event: asyncio.Event) -> None:
        """The opposite of `listen`.  May be repeated."""
        self._listeners.pop(event, None)

    def _wake(self) -> None:
        for event in self._listeners:
            event.set()


class MemoryStore:
    """One client of a `MemoryCluster`; a `Store`."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self._closed = False
        self._watches: dict[asyncio.Event, None] = {}

    async def read(self, prefix: str) -> Snapshot:
        self._check_open()
        return self._cluster.snapshot(prefix)

    async def commit(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> Txn:
        self._check_open()
        return self._cluster.commit(compares, ops)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[tuple[Change, ...]]:
        if from_revision < 1:
            raise ValueError("a watch starts at revision 1 or later")
        news = asyncio.Event()
        self._watches[news] = None
        self._cluster.listen(news)
        try:
            while not self._closed:
                news.clear()
                if from_revision < self._cluster.compacted:
                    from_revision = self._cluster.compacted
                    yield ()
                    continue
                # One revision a turn: while the consumer is busy, a compaction may pass it by.
                for changes in self._cluster.changes(prefix, from_revision)[:1]:
                    from_revision = changes[0].mod_revision + 1
                    news.set()
                    yield changes
                await news.wait()
        finally:
            self._cluster.forget(news)
            self._watches.pop(news, None)

    async def close(self) -> None:
        self._closed = True
        for news in self._watches:
            news.set()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnknown("the client of the store is closed")
