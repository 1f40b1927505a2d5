"""What a store promises: a small, linearizable key-value store with watches.

Two implementations, one contract suite (tests/contract/test_store.py):
`store/etcd.py` (the real one) and `store/memory.py`.

Errors are sorted into two kinds, and only two (S1):
- *lost*: a transaction's comparison failed.  That is a result, not an
  exception: `Txn.succeeded` is False, and nothing was written.
- *unknown*: everything else (`StoreUnknown`): the write may have happened, may
  still happen later, or never.  Only a comparison that has since failed, or a
  linearizable read at a newer revision, ends the doubt.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from flightmode.model.placement import Placement


@dataclass(frozen=True, slots=True)
class Entry:
    """One key as read: its bytes and the revision of its last change (`mod_revision`)."""

    key: str
    value: bytes
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All entries under a prefix as of one store revision (one linearizable read)."""

    revision: int
    entries: dict[str, Entry]


@dataclass(frozen=True, slots=True)
class Put:
    """Write `value` at `key`."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `key`; removing a key that is not there is fine."""

    key: str


Op = Put | Delete


@dataclass(frozen=True, slots=True)
class Compare:
    """`key` was last changed at `mod_revision`; 0 means: it does not exist."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Txn:
    """The outcome of a compare-and-swap that is known: done, or *lost*."""

    succeeded: bool
    revision: int
    """The store's revision when the transaction was answered; if it succeeded, the new
    `mod_revision` of every key it wrote."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something under a watched prefix changed (value None: the key was deleted)."""

    key: str
    value: bytes | None
    mod_revision: int


class Store(Protocol):
    """A linearizable key-value store."""

    async def read(self, prefix: str) -> Snapshot:
        """Everything under `prefix`, linearizably.  Raises StoreUnknown within the deadline."""

    async def commit(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> Txn:
        """Carry out `ops` in one transaction if all `compares` hold.

        Never repeats a request whose outcome is unknown: raises StoreUnknown instead.
        """

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[tuple[Change, ...]]:
        """Changes under `prefix` from `from_revision` on, without end.

        Survives reconnects by resuming at the last revision + 1.  After a compaction
        that passed it by, yields an empty tuple: "something changed, read again".
        A watch is a wake-up, never evidence: decisions use `read`.
        """

    async def close(self) -> None:
        """Release sockets and tasks.  May be repeated."""


MAX_OPS = 128
"""etcd's default `--max-txn-ops`: more comparisons or operations than this are refused."""


def check_txn(compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> None:
    """Raise ValueError for a transaction that every store would refuse: a bug of the caller.

    etcd refuses to write one key twice in a transaction ("duplicate key given").
    """
    if len(compares) > MAX_OPS or len(ops) > MAX_OPS:
        raise ValueError(f"a transaction holds at most {MAX_OPS} comparisons and operations")
    if len({op.key for op in ops}) != len(ops):
        raise ValueError("a transaction writes each key at most once")
    if not all(item.key for item in (*compares, *ops)):
        raise ValueError("a key is not empty")


class Placing(Protocol):
    """Where the store's own leader is.  Raises StoreError when nobody tells."""

    async def look(self) -> Placement:
        """What the members say now.  Never raises for one that does not answer."""

    async def move(self, node: str) -> None:
        """Make that node's member lead.  Safe to repeat; an unknown outcome is harmless."""
