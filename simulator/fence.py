"""The fence of one host: the process (fence/memory.py, ticked on time) and an agent's way to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import TypeVar

from flightmode.errors import FenceUnreachable
from flightmode.fence.memory import MemoryFence
from flightmode.fence.port import Fenced, FenceEvent, FenceReport, StartRequest
from flightmode.model.server import FenceView, Role
from simulator.host import Host
from simulator.postgres import PRIMARY, SimServer

_PATIENCE_S = 1.0

T = TypeVar("T")


class WatchedFence(MemoryFence):
    """Tells of each end of a permission in the instant in which it happens."""

    def __init__(self, process: "FenceProcess") -> None:
        self._process = process
        clock, name = process.host.clock, process.host.name
        super().__init__(clock.now_s, clock.wall_s, process.server, name)

    def _tell(self, event: FenceEvent) -> None:
        if isinstance(event, Fenced):
            self._process.ended(event.why, self._role is Role.PRIMARY)
        super()._tell(event)

    async def kill(self) -> None:
        server = self._process.server
        runs = server.state == PRIMARY and server.postmaster() is not None and not server.ending
        await super().kill()
        if runs:
            self._process.killed()

    def vanish(self) -> None:
        """With its machine: whoever listened will listen to the next one."""
        self.lost = True
        for listener in self._listeners:
            listener.put_nowait(None)


class FenceProcess:
    """Kept running by systemd, which takes a moment; Postgres does not survive it."""

    def __init__(self, host: Host, server: SimServer, dice: Random) -> None:
        self.host = host
        self.server = server
        self._dice = dice
        self.hung = False
        self.ended: Callable[[str, bool], None] = lambda *_: None
        """A permission ended: why, and whether a primary is stopped by it."""
        self.killed: Callable[[], None] = lambda: None
        """An agent ended a primary by SIGKILL."""
        self.fence = self._new()
        self.began_s = -1e9
        """When this process of it was started, in the world's time."""
        self._armed: float | None = None

    def _new(self) -> "WatchedFence":
        return WatchedFence(self)

    @property
    def armed(self) -> bool:
        """A deadline is in force."""
        return self.fence.next_s() is not None

    @property
    def heartbeats_to(self) -> tuple[str, ...]:
        """Whom it sends heartbeats to, while it gets to run."""
        return () if self.hung or self.fence.lost else self.fence.heartbeats_to

    def tick(self) -> None:
        """A clock or a process has changed."""
        if self.hung or self.host.frozen or not self.host.up:
            return
        self.fence.tick()
        self.arm()

    def arm(self) -> None:
        """Tick again at the next instant that matters."""
        at_s = self.fence.next_s()
        if at_s is None or self.fence.lost:
            return
        due_s = self.host.loop.time() + self.host.clock.until_s(at_s) + 1e-6
        if self._armed is None or due_s < self._armed - 1e-9:
            self._armed = due_s
            self.host.later(due_s - self.host.loop.time(), self._due)

    def _due(self) -> None:
        self._armed = None
        self.tick()
        if self.hung:
            self.host.later(0.05, self._due)

    def die(self, stays_away_s: float = 0.0) -> None:
        """SIGKILL; the kernel tells the postmaster, systemd starts another fence when it can."""
        if not self.fence.lost:
            self.fence.die()
            self.host.later(self._dice.uniform(0.1, 1.0) + stays_away_s, self._again)

    def power_off(self) -> None:
        self.fence.vanish()

    def _again(self) -> None:
        self.fence = self._new()
        self.began_s = self.host.loop.time()
        self._armed = None

    power_on = _again


class SimFence:
    """Implements `flightmode.fence.port.Fence`, for one agent."""

    def __init__(
        self,
        process: FenceProcess,
        gate: Callable[[], Awaitable[None]],
        extended: Callable[[int, float], None],
    ) -> None:
        self._process = process
        self._gate = gate
        self._extended = extended

    async def _ask(self, act: Callable[[MemoryFence], Awaitable[T]]) -> T:
        await self._process.host.loop.sleep(0.0002)
        await self._gate()
        if self._process.hung:
            await self._process.host.loop.sleep(_PATIENCE_S)
            raise FenceUnreachable("the fence does not answer")
        answer = await act(self._process.fence)
        self._process.arm()
        return answer

    async def start(self, request: StartRequest) -> int:
        pid = await self._ask(lambda fence: fence.start(request))
        if request.role is Role.PRIMARY and request.deadline_s is not None:
            self._extended(request.term, request.deadline_s)
        return pid

    async def extend(self, term: int, deadline_s: float) -> None:
        await self._ask(lambda fence: fence.extend(term, deadline_s))
        self._extended(term, deadline_s)

    async def lift(self, term: int) -> None:
        await self._ask(lambda fence: fence.lift(term))

    async def set_role(self, role: Role, term: int) -> None:
        await self._ask(lambda fence: fence.set_role(role, term))

    async def stop(self, mode: str) -> None:
        await self._ask(lambda fence: fence.stop(mode))

    async def void(self) -> None:
        await self._ask(lambda fence: fence.void())

    async def kill(self) -> None:
        await self._ask(lambda fence: fence.kill())

    async def status(self) -> FenceView:
        return await self._ask(lambda fence: fence.status())

    async def report(self) -> FenceReport:
        return await self._ask(lambda fence: fence.report())

    async def send_heartbeats(self, to: tuple[str, ...]) -> None:
        await self._ask(lambda fence: fence.send_heartbeats(to))

    async def events(self) -> AsyncIterator[FenceEvent]:
        async for event in self._process.fence.events():
            await self._gate()
            yield event
