"""Many clients that write without a pause and note truthfully what they were told.

Each transaction inserts one row of its own, (client, sequence), and moves money between two
accounts.  What a client knows of it afterwards, it knows from this, and from nothing else:

    failed before COMMIT left        -> rejected
    COMMIT answered "COMMIT"         -> acknowledged
    COMMIT answered "ROLLBACK"       -> rejected
    COMMIT answered with a warning   -> unknown: "canceling wait for synchronous replication"
                                        says that the commit is on this node only (manual, 27.2.8)
    no answer, or an error           -> unknown
"""

import asyncio
import random
from collections.abc import Mapping
from types import TracebackType
from typing import Self, cast

import psycopg

from flightmode.agent.clock import Clock, SystemClock
from flightmode.demo.finder import Finder, dropped
from flightmode.demo.ledger import Attempt, Outcome, Row
from flightmode.demo.link import Link
from flightmode.errors import RehearsalFailed

ACCOUNTS = 10
"""Accounts a client: its own, so that no client waits for the row locks of another."""
CONNECT_DEADLINE_S = 1.0
STATEMENT_DEADLINE_S = 5.0
STALL_S = 0.25
"""Without an acknowledgement for so long, all clients together ask whether the primary moved."""
RETRY_S = 0.05
"""A client connects at most this often: twenty times a second."""
LOGINS_AT_A_TIME = 3
"""To one node, as psycopg_pool's three workers do.  A login costs this process milliseconds (TLS,
SCRAM); sixteen that take turns all end with the last of them, so nobody writes before that."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (client integer NOT NULL, sequence bigint NOT NULL);
CREATE TABLE IF NOT EXISTS account (
    client integer, number integer, balance bigint NOT NULL, PRIMARY KEY (client, number)
);
"""
FILL = """
INSERT INTO account SELECT client, number, 1000
FROM generate_series(0, %s - 1) AS client, generate_series(0, %s - 1) AS number
ON CONFLICT DO NOTHING;
"""
# One round trip up to the COMMIT.  No primary key on the ledger: a row that is written twice
# must be found, not prevented.
WRITE = """
BEGIN;
INSERT INTO ledger (client, sequence) VALUES (%s, %s);
UPDATE account SET balance = balance - %s WHERE client = %s AND number = %s;
UPDATE account SET balance = balance + %s WHERE client = %s AND number = %s;
"""


class Workload:
    """Clients, from `start` to `stop`; `history` has every transaction, in the order of ends."""

    def __init__(
        self,
        nodes: Mapping[str, str],
        *,
        clients: int = 16,
        pause_s: float = 0.04,
        clock: Clock | None = None,
    ) -> None:
        """`nodes`: name to libpq conninfo of every node that may ever be primary."""
        self._nodes = dict(nodes)
        self._count = clients
        self._pause_s = pause_s
        self._clock = clock or SystemClock()
        self._finder = Finder(nodes, self._abandon_others)
        # Apart for each node: logins that a dead one keeps waiting are in nobody's way.
        self._logins = {name: asyncio.Semaphore(LOGINS_AT_A_TIME) for name in nodes}
        self._links: dict[int, Link] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._last_answer_s = self._clock.now_s()
        self.history: list[Attempt] = []

    @property
    def primary(self) -> str | None:
        """The node that the clients last found to take writes."""
        return self._finder.node

    def acknowledged_per_s(self, window_s: float = 1.0) -> float:
        """Commits a second, over all clients, in the last `window_s`."""
        since_s, count = self._clock.now_s() - window_s, 0
        for attempt in reversed(self.history):
            if attempt.ended_s < since_s:
                break
            count += attempt.outcome is Outcome.ACKNOWLEDGED
        return count / window_s

    async def __aenter__(self) -> Self:
        self._finder.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            # Somebody wants out: nobody waits for an answer any more.
            for link in self._links.values():
                link.abort()
        try:
            await self.stop()
        finally:
            await self._finder.stop()

    async def prepare(self, *, within_s: float = 30.0) -> None:
        """Make the tables on the primary, as soon as there is one.  May be repeated."""
        link = await self._primary_link(within_s)
        try:
            await link.execute(SCHEMA, deadline_s=within_s)
            await link.execute(FILL, (self._count, ACCOUNTS), deadline_s=within_s)
        finally:
            await dropped(link)

    def start(self) -> None:
        """Let all clients begin."""
        self._stopping.clear()
        self._last_answer_s = self._clock.now_s()
        work = [self._work(client) for client in range(self._count)]
        self._tasks = [asyncio.create_task(one) for one in (*work, self._watch_for_stalls())]

    async def stop(self) -> None:
        """Let every client end the transaction it is in, and return when all have."""
        self._stopping.set()
        # A client that fails for a reason of its own is a bug, and must not pass in silence.
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for failure in results:
            if isinstance(failure, BaseException):
                raise failure

    async def rows(self, *, within_s: float = 30.0) -> list[Row]:
        """Every row of the ledger, read from the primary."""
        link = await self._primary_link(within_s)
        try:
            query = "SELECT client, sequence FROM ledger"
            cursor = await link.execute(query, deadline_s=within_s)
            found = cast("list[tuple[int, int]]", await cursor.fetchall())
            return [Row(client, sequence) for client, sequence in found]
        finally:
            await dropped(link)

    async def imbalance(self, *, within_s: float = 30.0) -> int:
        """How much money there is too much; 0 when every transfer was done wholly or not."""
        link = await self._primary_link(within_s)
        try:
            query = "SELECT coalesce(sum(balance - 1000), 0)::bigint FROM account"
            cursor = await link.execute(query, deadline_s=within_s)
            (total,) = cast("tuple[int]", await cursor.fetchone())
            return total
        finally:
            await dropped(link)

    async def _primary_link(self, within_s: float) -> Link:
        """A connection of its own to the primary; raises RehearsalFailed when none appears."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    if (link := await self._connect()) is not None:
                        return link
                    await asyncio.sleep(RETRY_S)
        except TimeoutError as error:
            names = ", ".join(self._nodes)
            raise RehearsalFailed(f"none of {names} took writes within {within_s:g} s") from error

    async def _connect(self) -> Link | None:
        node = await self._finder.find()
        try:
            async with self._logins[node]:
                return await Link.open(node, self._nodes[node], deadline_s=CONNECT_DEADLINE_S)
        except (psycopg.Error, TimeoutError):
            return None

    async def _work(self, client: int) -> None:
        dice = random.Random(client)
        sequence = 0
        link: Link | None = None
        while not self._stopping.is_set():
            if link is None and (link := await self._join()) is None:
                await asyncio.sleep(RETRY_S)
                continue
            self._links[client] = link
            attempt = await self._attempt(link, Row(client, sequence), dice)
            sequence += 1
            self.history.append(attempt)
            if attempt.outcome is not Outcome.ACKNOWLEDGED:
                self._finder.miss()
                await dropped(self._links.pop(client))
                link = None
            await asyncio.sleep(self._pause_s if link else RETRY_S)
        self._links.pop(client, None)
        await dropped(link)

    async def _join(self) -> Link | None:
        """Connect to the primary, or give up when the workload ends before there is one."""
        connecting = asyncio.create_task(self._connect())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((connecting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not connecting.done():
            connecting.cancel()
            await asyncio.wait((connecting,))
            return None
        return connecting.result()

    async def _attempt(self, link: Link, row: Row, dice: random.Random) -> Attempt:
        began_s = self._clock.now_s()
        outcome, error = await self._transact(link, row, dice)
        ended_s = self._clock.now_s()
        if outcome is Outcome.ACKNOWLEDGED:
            self._last_answer_s = ended_s
        return Attempt(row, outcome, began_s, ended_s, link.node, error)

    async def _transact(self, link: Link, row: Row, dice: random.Random) -> tuple[Outcome, str]:
        amount, (payer, payee) = dice.randint(1, 9), dice.sample(range(ACCOUNTS), 2)
        client = row.client
        values = (client, row.sequence, amount, client, payer, amount, client, payee)
        try:
            await link.execute(WRITE, values, deadline_s=STATEMENT_DEADLINE_S)
        except psycopg.Error as error:
            return Outcome.REJECTED, str(error)
        link.warned = False
        try:
            cursor = await link.execute("COMMIT", deadline_s=STATEMENT_DEADLINE_S)
        except psycopg.Error as error:
            return Outcome.UNKNOWN, str(error)
        if cursor.statusmessage != "COMMIT":
            return Outcome.REJECTED, f"COMMIT was answered {cursor.statusmessage}"
        if link.warned:
            return Outcome.UNKNOWN, "COMMIT was answered with a warning"
        return Outcome.ACKNOWLEDGED, ""

    async def _watch_for_stalls(self) -> None:
        """Have the finder look again while nobody gets an answer, though all are connected."""
        while not self._stopping.is_set():
            if self._clock.now_s() - self._last_answer_s > STALL_S:
                self._finder.miss()
            await asyncio.sleep(RETRY_S)

    def _abandon_others(self, node: str) -> None:
        """A primary was found: whoever still waits for another node waits in vain."""
        for link in self._links.values():
            if link.node != node:
                link.abort()
