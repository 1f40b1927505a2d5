"""The transactions: what each sends, and how its client knows what became of it.

As in `flightmode.demo.workload`: COMMIT answered without a warning is acknowledged; an error
before COMMIT left is rejected, and so is one that says "rolled back" (class 40); anything else,
and above all silence, is unknown.

Each transaction asks its server who it is and which timeline it writes, before COMMIT: a server
never changes either while a connection to it lives.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from chaos.history import Txn, Way, What
from flightmode.agent.clock import Clock
from flightmode.demo.finder import TIMELINE
from flightmode.demo.ledger import Outcome
from flightmode.demo.link import Link

ACCOUNTS = 12
BALANCE = 1000
LISTS_AT_ONCE = 5
APPENDS_A_ROUND = 300
"""After so many appends the clients move on to new lists: long arrays tell no more than short."""
SCHEMA = f"""
CREATE TABLE ledger (client integer NOT NULL, sequence bigint NOT NULL);
CREATE TABLE lists (key integer PRIMARY KEY, vals integer[] NOT NULL);
CREATE TABLE bank (number integer PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO bank SELECT number, {BALANCE} FROM generate_series(1, {ACCOUNTS}) AS number;
"""
WHO = f"SELECT current_setting('cluster_name'), ({TIMELINE});"
ROLLED_BACK = ("40001", "40P01", "40000", "40002")
STANDBY = "25006"
"""SQLSTATE of a write on a standby."""

Rows = list[tuple[Any, ...]]


@dataclass(slots=True)
class Attempt:
    """A transaction that is being made: what to send, and what was learnt so far."""

    what: What
    query: str
    values: Sequence[object] = ()
    read: Callable[["Attempt", list[Rows]], None] | None = None
    """Takes what the statements returned, result by result, without the last (`WHO`)."""
    sequence: int | None = None
    key: int | None = None
    value: int | None = None
    reads: dict[int, tuple[int, ...]] = field(default_factory=dict)
    total: int | None = None
    commit_s: float | None = None
    node: str = ""
    timeline: int = 0
    sqlstate: str = ""


async def make(
    attempt: Attempt, link: Link, client: int, way: Way, clock: Clock, *, deadline_s: float
) -> Txn:
    """One transaction from BEGIN to its end, told truthfully."""
    began_s = clock.now_s()
    outcome, error = await _transact(attempt, link, clock, deadline_s)
    return Txn(
        client,
        way,
        attempt.what,
        outcome,
        began_s,
        attempt.commit_s,
        clock.now_s(),
        attempt.node,
        attempt.timeline,
        error[:300],
        attempt.sequence,
        attempt.key,
        attempt.value,
        attempt.reads,
        attempt.total,
    )


async def _transact(
    attempt: Attempt, link: Link, clock: Clock, deadline_s: float
) -> tuple[Outcome, str]:
    try:
        cursor = await link.execute(attempt.query + WHO, attempt.values, deadline_s=deadline_s)
        *results, ((attempt.node, attempt.timeline),) = await _results(cursor)
    except psycopg.Error as error:
        attempt.sqlstate = error.sqlstate or ""
        await _roll_back(link, deadline_s)
        return Outcome.REJECTED, str(error).strip()
    if attempt.read is not None:
        attempt.read(attempt, results)
    link.warned = False
    attempt.commit_s = clock.now_s()
    try:
        cursor = await link.execute("COMMIT", deadline_s=deadline_s)
    except psycopg.Error as error:
        attempt.sqlstate = error.sqlstate or ""
        await _roll_back(link, deadline_s)
        certain = attempt.sqlstate in ROLLED_BACK
        return Outcome.REJECTED if certain else Outcome.UNKNOWN, str(error).strip()
    if cursor.statusmessage != "COMMIT":
        return Outcome.REJECTED, f"COMMIT was answered {cursor.statusmessage}"
    if link.warned:
        return Outcome.UNKNOWN, "COMMIT was answered with a warning"
    return Outcome.ACKNOWLEDGED, ""


async def _results(cursor: psycopg.AsyncCursor[tuple[object, ...]]) -> list[Rows]:
    """What each of several statements returned, those that return rows."""
    found: list[Rows] = []
    while True:
        if cursor.description is not None:
            found.append(await cursor.fetchall())
        if not cursor.nextset():
            return found


async def _roll_back(link: Link, deadline_s: float) -> None:
    if link.closed or not link.in_transaction:
        return
    try:
        await link.execute("ROLLBACK", deadline_s=deadline_s)
    except psycopg.Error:
        # Whatever it is: the connection is not used again.
        link.abort()


# ------------------------------------------------------------------ the kinds


def row(client: int, sequence: int) -> Attempt:
    """One row that nobody else inserts."""
    query = "BEGIN; INSERT INTO ledger (client, sequence) VALUES (%s, %s);"
    return Attempt(What.ROW, query, (client, sequence), sequence=sequence)


def transfer(dice: random.Random) -> Attempt:
    """Money from one account to another; the lower number first, so that none waits in a circle."""
    one, other = sorted(dice.sample(range(1, ACCOUNTS + 1), 2))
    amount = dice.choice((-1, 1)) * dice.randint(1, 50)
    query = "BEGIN;" + "UPDATE bank SET balance = balance + %s WHERE number = %s;" * 2
    return Attempt(What.TRANSFER, query, (amount, one, -amount, other))


def total() -> Attempt:
    """All accounts, in one snapshot."""

    def read(attempt: Attempt, results: list[Rows]) -> None:
        [[(attempt.total,)]] = results

    return Attempt(What.TOTAL, "BEGIN; SELECT sum(balance)::bigint FROM bank;", read=read)


class Lists:
    """Which lists are written now, and the next value: each value is given out once."""

    def __init__(self) -> None:
        self._next = 0

    def append(self, dice: random.Random) -> Attempt:
        """Read two lists, append to one of them; serializable."""
        self._next += 1
        key, beside = dice.sample(self._current(), 2)
        query = (
            "BEGIN ISOLATION LEVEL SERIALIZABLE;"
            "SELECT key, vals FROM lists WHERE key IN (%s, %s);"
            "INSERT INTO lists VALUES (%s, ARRAY[%s]) "
            "ON CONFLICT (key) DO UPDATE SET vals = lists.vals || excluded.vals;"
        )
        return Attempt(
            What.LIST,
            query,
            (key, beside, key, self._next),
            lambda attempt, results: _read_lists(attempt, results, (key, beside)),
            key=key,
            value=self._next,
        )

    def look(self) -> Attempt:
        """Read all that are written now."""
        keys = self._current()
        query = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT key, vals FROM lists "
        query += f"WHERE key IN ({', '.join(map(str, keys))});"
        return Attempt(What.LIST, query, (), lambda a, results: _read_lists(a, results, keys))

    def _current(self) -> range:
        first = self._next // APPENDS_A_ROUND * LISTS_AT_ONCE
        return range(first, first + LISTS_AT_ONCE)


def _read_lists(attempt: Attempt, results: list[Rows], keys: Sequence[int]) -> None:
    [found] = results
    attempt.reads = dict.fromkeys(keys, ()) | {key: tuple(values) for key, values in found}
