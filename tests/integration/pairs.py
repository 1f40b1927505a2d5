"""ams and fra, real ones and simulated ones, behind one set of verbs for the conformance tests."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import count
from typing import Any, Protocol

import psycopg

from flightmode.fence.port import StartRequest
from flightmode.model.server import FenceView, Role, Server
from flightmode.postgres.port import Postgres
from simulator.hand import SimPostgres
from simulator.history import History
from simulator.loop import VirtualLoop
from simulator.postgres import STANDBY, SimServer
from simulator.weather import Weather
from simulator.world import World
from tests.integration.postgres_server import Machine, Node

WAITS_S = 1.0
"""A commit that is not acknowledged in this time waits."""
_UNTIL_S = 30.0
NODES = ("ams", "fra")

Trace = list[str]
Script = Callable[["Pair"], Awaitable[Trace]]


class Pair(Protocol):
    """Two servers and their hands."""

    def hand(self, name: str) -> Postgres: ...

    async def launch(self, name: str, role: Role, following: str | None) -> None:
        """Configure and start, and do not wait."""

    async def end(self, name: str, *, orderly: bool) -> None:
        """A fast shutdown or an immediate one, until nothing is left."""

    async def observe(self, name: str) -> Server: ...

    async def commit(self, name: str, row: int) -> str:
        """acknowledged | broken; it may wait without end."""

    async def rows(self, name: str) -> list[int]:
        """What a new snapshot shows."""

    async def empty(self, name: str) -> None:
        """A new database there, which runs as a primary and is prepared."""


class Stage:
    """What the scripts do, in both worlds."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._commits: dict[int, asyncio.Task[str]] = {}

    async def begin(self) -> None:
        """ams is a primary, fra streams from it."""
        await self.pair.empty("ams")
        await self.pair.hand("fra").clone("ams")
        await self.start("fra", Role.STANDBY, "ams")
        await self.streams("fra", "ams")

    async def start(self, name: str, role: Role, following: str | None = None) -> None:
        await self.pair.launch(name, role, following)
        await self.until(name, lambda seen: seen.run == role.value)

    async def streams(self, name: str, of: str) -> None:
        await self.until(name, lambda seen: bool(seen.receiver and seen.receiver.streaming))

        def told(seen: Server) -> bool:
            row = seen.replica(name)
            return row is not None and row.streaming and row.flushed >= seen.position

        await self.until(of, told)

    async def until(self, name: str, holds: Callable[[Server], bool]) -> Server:
        """Raises TimeoutError."""
        async with asyncio.timeout(_UNTIL_S):
            while not holds(seen := await self.pair.observe(name)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return seen

    async def wait_for_fra(self) -> None:
        await self.pair.hand("ams").set_sync_names(("fra",))
        await self.until("ams", lambda seen: seen.sync_since is not None)

    async def add(self, row: int, to: str = "ams") -> str:
        """Begin a commit, and what is known of it a moment later."""
        self._commits[row] = asyncio.create_task(self.pair.commit(to, row))
        return await self.told(row)

    async def told(self, row: int) -> str:
        """acknowledged | broken | waits"""
        task = self._commits[row]
        await asyncio.wait({task}, timeout=WAITS_S)
        return f"{row} {task.result() if task.done() else 'waits'}"

    async def shows(self, name: str, rows: Iterable[int]) -> str:
        """What a snapshot there shows, as soon as it is these; a standby replays a moment later."""
        wanted, until_s = list(rows), asyncio.get_running_loop().time() + 5.0
        while (found := await self.pair.rows(name)) != wanted:
            if asyncio.get_running_loop().time() > until_s:
                break
            await asyncio.sleep(0.05)
        return f"{name} shows {found}"


# ------------------------------------------------------------------ real


class RealPair:
    """PostgreSQL, started and ended by the test."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._nodes: dict[str, Node] = {}

    def _node(self, name: str) -> Node:
        if name not in self._nodes:
            self._nodes[name] = self._machine.node(name)
        return self._nodes[name]

    def hand(self, name: str) -> Postgres:
        return self._node(name).server

    async def empty(self, name: str) -> None:
        self._nodes[name] = await self._machine.primary(name)
        await self._nodes[name].sql("CREATE TABLE rows (i int PRIMARY KEY)")

    async def launch(self, name: str, role: Role, following: str | None) -> None:
        await self._node(name).launch(role, None if following is None else self._node(following))

    async def end(self, name: str, *, orderly: bool) -> None:
        await self._node(name).stop(signal.SIGINT if orderly else signal.SIGQUIT)

    async def observe(self, name: str) -> Server:
        return await self._node(name).observe()

    async def commit(self, name: str, row: int) -> str:
        try:
            await self._node(name).sql("INSERT INTO rows VALUES (%s)", row)
        except psycopg.Error:
            return "broken"
        return "acknowledged"

    async def rows(self, name: str) -> list[int]:
        return [row[0] for row in await self._node(name).sql("SELECT i FROM rows ORDER BY i")]


# ------------------------------------------------------------------ simulated


class _Quiet(World):
    """Without the clients that write by themselves, and without agents."""

    def _clients(self, rows: "count[int]") -> None:
        return


async def _at_once() -> None:
    return


class SimPair:
    """The simulator's model."""

    def __init__(self, seed: int, weather: Weather) -> None:
        self._world = _Quiet(seed, weather, History())
        self._hands = {name: SimPostgres(self._server(name), _at_once) for name in NODES}

    def _server(self, name: str) -> SimServer:
        return self._world.servers[name]

    def hand(self, name: str) -> Postgres:
        return self._hands[name]

    async def empty(self, name: str) -> None:
        await self._hands[name].initdb()
        await Stage(self).start(name, Role.PRIMARY)
        await self._hands[name].prepare(tuple(each for each in NODES if each != name))

    async def launch(self, name: str, role: Role, following: str | None) -> None:
        command = await self._hands[name].configure(role, following=following, admit=True)
        self._server(name).start(StartRequest(command, role, 1, None))

    async def end(self, name: str, *, orderly: bool) -> None:
        self._server(name).signal("fast" if orderly else "immediate")
        async with asyncio.timeout(_UNTIL_S):
            while not self._server(name).empty():  # noqa: ASYNC110 - the model has no event
                await asyncio.sleep(0.01)

    async def observe(self, name: str) -> Server:
        server = self._server(name)
        running = server.postmaster() is not None
        return await self._hands[name].observe(
            FenceView(True, running=running, tree_empty=server.empty())
        )

    async def commit(self, name: str, row: int) -> str:
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._server(name).sessions.commit(row, lambda outcome, _: told.set_result(outcome))
        return await told

    async def rows(self, name: str) -> list[int]:
        server = self._server(name)
        assert server.data is not None
        records = server.data.wal.records[: server.data.wal.flushed]
        if server.state == STANDBY:
            shown = [each.row for each in records if each.end <= server.replayed]
        else:
            newest = server.sessions.newest
            ends = [each.end for each in records if each.row == newest]
            shown = [each.row for each in records if ends and each.end <= ends[0]]
        return sorted(row for row in shown if row is not None)


def simulated(script: Script, seed: int, weather: Weather) -> Trace:
    """The script's trace on the model, in virtual time."""

    async def play() -> Trace:
        return await script(SimPair(seed, weather))

    return _run(play())


def _run(work: Coroutine[Any, Any, Trace]) -> Trace:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
