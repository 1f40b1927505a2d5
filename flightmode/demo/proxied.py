"""An application behind the proxy: what its clients see while the database fails over.

Writers keep the same ledger as `workload.py`, on connections that they keep whatever happens:
the proxy promises that.  Beside them are clients that are caught between transactions: some idle
on an open connection, some always just coming in.  Those must notice nothing at all.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

import psycopg

from flightmode.agent.clock import Clock, SystemClock
from flightmode.demo.finder import dropped
from flightmode.demo.ledger import Attempt, Outcome, Row
from flightmode.demo.link import Link
from flightmode.demo.workload import ACCOUNTS, FILL, SCHEMA, WRITE

DEADLINE_S = 45.0
"""Longer than the proxy holds anybody: that it lets go in time is its promise."""
_IDLE_S = 0.4
_NEW_EVERY_S = 0.15
ROLLED_BACK = "40001"
NOT_KNOWN = "08007"


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that a client saw.  `sqlstate` is empty when its connection broke."""

    at_s: float
    who: str
    """`writer`, `idle` or `new`."""
    sqlstate: str
    message: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The errors of a stretch of time, sorted by what the proxy promises of them."""

    between: int
    """Seen by clients between transactions: idle, new, or waiting.  Promised: none."""
    rolled_back: int
    """Of writers in mid-transaction: 40001, safe to try again."""
    not_known: int
    """Of writers whose COMMIT was under way: 08007."""
    others: tuple[str, ...]
    """Of writers, anything else.  Promised: none."""

    @property
    def as_promised(self) -> bool:
        return self.between == 0 and not self.others


def seen(faults: Iterable[Fault]) -> Seen:
    """Sort them.  A writer that gets another error than the two must be counted as one too many."""
    by_state = Counter(fault.sqlstate for fault in faults if fault.who == "writer")
    known = {ROLLED_BACK, NOT_KNOWN}
    return Seen(
        sum(fault.who != "writer" for fault in faults),
        by_state[ROLLED_BACK],
        by_state[NOT_KNOWN],
        tuple(
            f"{fault.sqlstate or 'connection lost'}: {fault.message}"
            for fault in faults
            if fault.who == "writer" and fault.sqlstate not in known
        ),
    )


class Application:
    """Clients behind a proxy, from `start` to `stop`; the same face as `Workload`."""

    def __init__(
        self,
        conninfo: str,
        *,
        writers: int = 16,
        idle: int = 8,
        newcomers: int = 2,
        pause_s: float = 0.04,
        clock: Clock | None = None,
    ) -> None:
        """`conninfo`: of the proxy."""
        self._conninfo = conninfo
        self._writers, self._idle, self._newcomers = writers, idle, newcomers
        self._pause_s = pause_s
        self._clock = clock or SystemClock()
        self._links: set[Link] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self.history: list[Attempt] = []
        self.faults: list[Fault] = []

    def acknowledged_per_s(self, window_s: float = 1.0) -> float:
        """Commits a second, over all clients, in the last `window_s`."""
        since_s, count = self._clock.now_s() - window_s, 0
        for attempt in reversed(self.history):
            if attempt.ended_s < since_s:
                break
            count += attempt.outcome is Outcome.ACKNOWLEDGED
        return count / window_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            # Somebody wants out: nobody waits for an answer any more.
            for link in self._links:
                link.abort()
        await self.stop()

    async def prepare(self) -> None:
        """Make the tables.  May be repeated."""
        link = await self._open()
        try:
            await link.execute(SCHEMA, deadline_s=DEADLINE_S)
            await link.execute(FILL, (self._writers, ACCOUNTS), deadline_s=DEADLINE_S)
        finally:
            await dropped(link)

    def start(self) -> None:
        """Let all clients begin."""
        self._stopping.clear()
        work = [self._write(client) for client in range(self._writers)]
        work += [self._stay() for _ in range(self._idle)]
        work += [self._come_and_go() for _ in range(self._newcomers)]
        self._tasks = [asyncio.create_task(one) for one in work]

    async def stop(self) -> None:
        """Let every client end what it is in, and return when all have."""
        self._stopping.set()
        # A client that fails for a reason of its own is a bug, and must not pass in silence.
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for failure in results:
            if isinstance(failure, BaseException):
                raise failure

    async def rows(self) -> list[Row]:
        """Every row of the ledger."""
        found = cast(
            "list[tuple[int, int]]", await self._ask("SELECT client, sequence FROM ledger")
        )
        return [Row(client, sequence) for client, sequence in found]

    async def imbalance(self) -> int:
        """How much money there is too much; 0 when every transfer was done wholly or not."""
        query = "SELECT coalesce(sum(balance - 1000), 0)::bigint FROM account"
        ((total,),) = cast("list[tuple[int]]", await self._ask(query))
        return total

    async def _ask(self, query: str) -> list[tuple[object, ...]]:
        link = await self._open()
        try:
            cursor = await link.execute(query, deadline_s=DEADLINE_S)
            return await cursor.fetchall()
        finally:
            await dropped(link)

    async def _open(self) -> Link:
        return await Link.open("proxy", self._conninfo, deadline_s=DEADLINE_S)

    async def _join(self, who: str) -> Link | None:
        try:
            link = await self._open()
        except (psycopg.Error, TimeoutError) as error:
            self._note(who, error)
            await asyncio.sleep(self._pause_s)
            return None
        self._links.add(link)
        return link

    async def _leave(self, link: Link) -> None:
        self._links.discard(link)
        await dropped(link)

    def _note(self, who: str, error: Exception) -> str:
        """Write an error down; its SQLSTATE."""
        state = (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""
        self.faults.append(Fault(self._clock.now_s(), who, state, str(error).strip()))
        return state

    async def _write(self, client: int) -> None:
        dice, sequence = random.Random(client), 0
        link: Link | None = None
        while not self._stopping.is_set():
            link = link or await self._join("new")
            if link is None:
                continue
            self.history.append(await self._attempt(link, Row(client, sequence), dice))
            sequence += 1
            if link.closed:
                await self._leave(link)
                link = None
            await asyncio.sleep(self._pause_s)
        if link is not None:
            await self._leave(link)

    async def _attempt(self, link: Link, row: Row, dice: random.Random) -> Attempt:
        began_s = self._clock.now_s()
        outcome, error = await self._transact(link, row, dice)
        return Attempt(row, outcome, began_s, self._clock.now_s(), link.node, error)

    async def _transact(self, link: Link, row: Row, dice: random.Random) -> tuple[Outcome, str]:
        amount, (payer, payee) = dice.randint(1, 9), dice.sample(range(ACCOUNTS), 2)
        client = row.client
        values = (client, row.sequence, amount, client, payer, amount, client, payee)
        try:
            await link.execute(WRITE, values, deadline_s=DEADLINE_S)
        except psycopg.Error as error:
            self._note("writer", error)
            await self._roll_back(link)
            return Outcome.REJECTED, str(error)
        link.warned = False
        try:
            cursor = await link.execute("COMMIT", deadline_s=DEADLINE_S)
        except psycopg.Error as error:
            # 40001 says that it is certainly not done; the ledger holds the proxy to that.
            state = self._note("writer", error)
            await self._roll_back(link)
            return Outcome.REJECTED if state == ROLLED_BACK else Outcome.UNKNOWN, str(error)
        if cursor.statusmessage != "COMMIT":
            return Outcome.REJECTED, f"COMMIT was answered {cursor.statusmessage}"
        if link.warned:
            return Outcome.UNKNOWN, "COMMIT was answered with a warning"
        return Outcome.ACKNOWLEDGED, ""

    async def _roll_back(self, link: Link) -> None:
        if link.closed or not link.in_transaction:
            return
        try:
            await link.execute("ROLLBACK", deadline_s=DEADLINE_S)
        except psycopg.Error as error:
            self._note("writer", error)

    async def _stay(self) -> None:
        """Connected all the time, asking something now and then."""
        link: Link | None = None
        while not self._stopping.is_set():
            link = link or await self._join("idle")
            if link is not None and not await self._look(link, "idle"):
                await self._leave(link)
                link = None
            await self._pause(_IDLE_S)
        if link is not None:
            await self._leave(link)

    async def _come_and_go(self) -> None:
        """A connection for each question, as programs without a pool do."""
        while not self._stopping.is_set():
            link = await self._join("new")
            if link is not None:
                await self._look(link, "new")
                await self._leave(link)
            await self._pause(_NEW_EVERY_S)

    async def _look(self, link: Link, who: str) -> bool:
        try:
            await link.execute("SELECT count(*) FROM account", deadline_s=DEADLINE_S)
        except psycopg.Error as error:
            self._note(who, error)
        return not link.closed

    async def _pause(self, length_s: float) -> None:
        """For so long, or until the end."""
        try:
            async with asyncio.timeout(length_s):
                await self._stopping.wait()
        except TimeoutError:
            return
