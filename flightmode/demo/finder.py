"""Who takes writes now, asked of all nodes at once.

libpq tries hosts one after the other, and a host without power costs it a whole time-out before
it asks the next.  Here every node has a prober of its own, with a connection that stays open: a
standby that is promoted answers "writable" on it within one probe, without a new login.  One
finder serves all clients of a program, so that sixteen of them do not storm a server that starts.
"""

import asyncio
from collections.abc import Callable, Mapping

import psycopg

from flightmode.demo.link import Link

PROBE_EVERY_S = 0.025
PROBE_DEADLINE_S = 0.5

# The timeline of what is being written, 0 where nothing can be.  The control file's timeline
# would be of the last checkpoint, which after a promotion may be minutes away.
TIMELINE = """
SELECT CASE
    WHEN pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' THEN 0
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer
END
"""


class Finder:
    """Looks for the primary while somebody misses it.

    Of two nodes that both call themselves writable the one on the higher timeline is right: the
    other one has not yet heard that it was replaced.
    """

    def __init__(self, nodes: Mapping[str, str], on_found: Callable[[str], None]) -> None:
        """`nodes`: name to conninfo.  `on_found` is told the node at each finding."""
        self._nodes = dict(nodes)
        self._on_found = on_found
        self._missed = asyncio.Event()
        self._waiting: list[asyncio.Future[str]] = []
        self._probers: list[asyncio.Task[None]] = []
        self.node: str | None = None
        self.timeline = 0

    def start(self) -> None:
        """Start the probers; they sleep until the primary is missed."""
        self._probers = [
            asyncio.create_task(self._probe(name, conninfo))
            for name, conninfo in self._nodes.items()
        ]

    async def stop(self) -> None:
        """End the probers and close their connections; whoever waits is cancelled."""
        for task in self._probers:
            task.cancel()
        await asyncio.gather(*self._probers, return_exceptions=True)
        for future in self._waiting:
            future.cancel()

    def miss(self) -> None:
        """Look again, though a node was found before."""
        self._missed.set()

    async def find(self) -> str:
        """The node that takes writes, asked anew; waits until there is one."""
        self.miss()
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return await future

    async def _probe(self, node: str, conninfo: str) -> None:
        link: Link | None = None
        try:
            while True:
                await self._missed.wait()
                try:
                    link = link or await Link.open(node, conninfo, deadline_s=PROBE_DEADLINE_S)
                    self._heard(node, await timeline_of(link))
                except (psycopg.Error, TimeoutError):
                    await dropped(link)
                    link = None
                await asyncio.sleep(PROBE_EVERY_S)
        finally:
            await dropped(link)

    def _heard(self, node: str, timeline: int) -> None:
        if timeline == 0 or timeline < self.timeline:
            return
        self.node, self.timeline = node, timeline
        self._missed.clear()
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(node)
        self._on_found(node)


async def timeline_of(link: Link) -> int:
    """The timeline that a node writes; 0 when it does not take writes."""
    cursor = await link.execute(TIMELINE, deadline_s=PROBE_DEADLINE_S)
    row = await cursor.fetchone()
    return int(str(row[0])) if row else 0


async def dropped(link: Link | None) -> None:
    """Close a connection, if there is one."""
    if link is not None:
        link.abort()
        await link.close()
