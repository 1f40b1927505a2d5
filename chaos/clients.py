"""Clients on three ways to the database, from `start` to `stop`, each noting all it was told.

direct   asks every node who takes writes, and goes there: sees a deposed primary at once
proxy    on the application's host, through `flightmode proxy`
local    on each database host by the socket: cut off together with its Postgres, it goes on
         writing, and is the one that would be told "committed" by a primary that was replaced
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from itertools import count, takewhile
from types import TracebackType
from typing import Any, Self, cast

import psycopg

from chaos.history import Final, Recorder, Txn, Way
from chaos.work import (
    ACCOUNTS,
    BALANCE,
    ROLLED_BACK,
    SCHEMA,
    STANDBY,
    Attempt,
    Lists,
    make,
    row,
    total,
    transfer,
)
from flightmode.agent.clock import Clock
from flightmode.demo.cluster import DATABASES, DemoCluster
from flightmode.demo.finder import Finder, dropped
from flightmode.demo.link import Link
from flightmode.errors import RehearsalFailed

_CONNECT_S = 1.0
_STATEMENT_S = 5.0
_PROXIED_S = 45.0
"""Longer than the proxy holds anybody."""
_PAUSE_S = 0.1
_RETRY_S = 0.1
_STALL_S = 0.3

_STAYS = (*ROLLED_BACK, STANDBY)
"""After these errors a connection is as good as before."""

Kind = Callable[[random.Random, int, int], Attempt]
"""Makes the next transaction of a client: from its dice, its number, and how many it made."""


class Clients:
    """All of them.  `answered_s` has, by way, when the newest acknowledged COMMIT had left."""

    def __init__(self, cluster: DemoCluster, recorder: Recorder, clock: Clock, seed: int) -> None:
        self._cluster, self._recorder, self._clock = cluster, recorder, clock
        self._seed = seed
        self._nodes = {name: cluster.conninfo(name) for name in DATABASES}
        self._finder = Finder(self._nodes, self._abandon_others)
        self._lists = Lists()
        self._links: dict[int, Link] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._count = 0
        self.answered_s: dict[Way, float] = dict.fromkeys(Way, 0.0)

    # ---------------------------------------------------------------- their lives

    async def __aenter__(self) -> Self:
        self._finder.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for link in self._links.values():
            link.abort()
        try:
            await self.stop()
        finally:
            await self._finder.stop()

    async def prepare(self) -> None:
        """Make the tables, on a cluster that is whole."""
        link = await self._primary(60.0)
        try:
            await link.execute(SCHEMA, deadline_s=30.0)
        finally:
            await dropped(link)

    def start(self) -> None:
        """Let all begin."""
        rows, lists, transfers, looks = self._row, self._append, self._transfer, self._look
        for kind in (rows, rows, rows, lists, lists, lists, transfers, transfers, looks):
            self._begin(self._direct, kind)
        for kind in (rows, rows, lists, transfers, looks):
            self._begin(self._proxied, kind)
        for name in DATABASES:
            self._begin(partial(self._local, name), self._any)
        self._tasks.append(asyncio.create_task(self._watch_for_stalls()))

    async def stop(self) -> None:
        """Let every client end the transaction it is in, and return when all have."""
        self._stopping.set()
        # A client that fails for a reason of its own is a bug, and must not pass in silence.
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for failure in results:
            if isinstance(failure, BaseException):
                raise failure

    async def final(self, within_s: float) -> Final:
        """All that the database has.  Raises RehearsalFailed, psycopg.Error."""
        link = await self._primary(within_s)
        try:
            found: list[list[tuple[Any, ...]]] = [
                cast(
                    "list[tuple[Any, ...]]",
                    await (await link.execute(query, deadline_s=within_s)).fetchall(),
                )
                for query in (
                    "SELECT client, sequence FROM ledger",
                    "SELECT key, vals FROM lists",
                    "SELECT sum(balance)::bigint FROM bank",
                )
            ]
        finally:
            await dropped(link)
        rows, lists, [(money,)] = found
        return Final(
            tuple((client, sequence) for client, sequence in rows),
            {key: tuple(values) for key, values in lists},
            money,
            ACCOUNTS * BALANCE,
        )

    def _begin(self, way: Callable[[int, Kind], Awaitable[None]], kind: Kind) -> None:
        async def live(client: int) -> None:
            await way(client, kind)

        self._tasks.append(asyncio.create_task(live(self._count)))
        self._count += 1

    # ---------------------------------------------------------------- what they do

    def _row(self, _dice: random.Random, client: int, made: int) -> Attempt:
        return row(client, made)

    def _append(self, dice: random.Random, _client: int, _made: int) -> Attempt:
        return self._lists.append(dice)

    def _transfer(self, dice: random.Random, _client: int, _made: int) -> Attempt:
        return transfer(dice)

    def _look(self, dice: random.Random, _client: int, _made: int) -> Attempt:
        return total() if dice.random() < 0.5 else self._lists.look()

    def _any(self, dice: random.Random, client: int, made: int) -> Attempt:
        kinds = (self._row, self._row, self._append, self._transfer)
        return dice.choice(kinds)(dice, client, made)

    # ---------------------------------------------------------------- the three ways

    async def _direct(self, client: int, kind: Kind) -> None:
        dice = self._dice(client)
        link: Link | None = None
        for made in self._turns():
            link = link or await self._unless_over(self._connect())
            if link is None:
                await asyncio.sleep(_RETRY_S)
                continue
            self._links[client] = link
            txn, attempt = await self._do(kind(dice, client, made), link, client, Way.DIRECT)
            if link.closed or not (txn.acknowledged or attempt.sqlstate in ROLLED_BACK):
                self._finder.miss()
                await dropped(self._links.pop(client))
                link = None
            await asyncio.sleep(_PAUSE_S)
        await dropped(self._links.pop(client, None))

    async def _proxied(self, client: int, kind: Kind) -> None:
        dice, conninfo = self._dice(client), self._cluster.proxied()
        link: Link | None = None
        for made in self._turns():
            link = link or await self._unless_over(self._open("proxy", conninfo, _PROXIED_S))
            if link is None:
                await asyncio.sleep(_RETRY_S)
                continue
            self._links[client] = link
            await self._do(kind(dice, client, made), link, client, Way.PROXY)
            if link.closed:
                await dropped(self._links.pop(client))
                link = None
            await asyncio.sleep(_PAUSE_S)
        await dropped(self._links.pop(client, None))

    async def _local(self, node: str, client: int, kind: Kind) -> None:
        """Writes while its Postgres takes writes; else it reads there what a standby has."""
        dice, conninfo, standby = self._dice(client), self._cluster.local(node), False
        link: Link | None = None
        for made in self._turns():
            link = link or await self._unless_over(self._open(f"on {node}", conninfo, _CONNECT_S))
            if link is None:
                await asyncio.sleep(_RETRY_S)
                continue
            self._links[client] = link
            attempt = (self._look if standby else kind)(dice, client, made)
            txn, attempt = await self._do(attempt, link, client, Way.LOCAL)
            # Asks again after each look: a standby that was promoted keeps its connections.
            standby = not standby and attempt.sqlstate == STANDBY
            if link.closed or not (txn.acknowledged or attempt.sqlstate in _STAYS):
                await dropped(self._links.pop(client))
                link = None
            await asyncio.sleep(_PAUSE_S)
        await dropped(self._links.pop(client, None))

    async def _do(self, attempt: Attempt, link: Link, client: int, way: Way) -> tuple[Txn, Attempt]:
        deadline_s = _PROXIED_S if way is Way.PROXY else _STATEMENT_S
        txn = await make(attempt, link, client, way, self._clock, deadline_s=deadline_s)
        self._recorder.txn(txn)
        if txn.acknowledged and txn.writes and txn.commit_s is not None:
            self.answered_s[way] = max(self.answered_s[way], txn.commit_s)
        return txn, attempt

    # ---------------------------------------------------------------- connections

    def _dice(self, client: int) -> random.Random:
        return random.Random(f"{self._seed}/{client}")

    def _turns(self) -> Iterator[int]:
        """Counts a client's transactions until it is to stop."""
        return takewhile(lambda _: not self._stopping.is_set(), count())

    async def _connect(self) -> Link | None:
        node = await self._finder.find()
        return await self._open(node, self._nodes[node], _CONNECT_S)

    async def _open(self, node: str, conninfo: str, deadline_s: float) -> Link | None:
        try:
            return await Link.open(node, conninfo, deadline_s=deadline_s)
        except (psycopg.Error, TimeoutError, OSError):
            return None

    async def _primary(self, within_s: float) -> Link:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    if (link := await self._connect()) is not None:
                        return link
                    await asyncio.sleep(_RETRY_S)
        raise RehearsalFailed(f"no node took writes within {within_s:g} s")

    async def _unless_over(self, connecting: Coroutine[None, None, Link | None]) -> Link | None:
        """Its result, or None when the clients are to stop before there is one."""
        task = asyncio.create_task(connecting)
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
            return None
        return task.result()

    async def _watch_for_stalls(self) -> None:
        """Have the finder look again while no direct client gets an answer."""
        while not self._stopping.is_set():
            if self._clock.now_s() - self.answered_s[Way.DIRECT] > _STALL_S:
                self._finder.miss()
            await asyncio.sleep(_RETRY_S)

    def _abandon_others(self, node: str) -> None:
        """A primary was found: a direct client that waits for another node waits in vain."""
        for link in self._links.values():
            if link.node in self._nodes and link.node != node:
                link.abort()
