"""A fence in memory, for the simulator: its clocks and its Postgres are handed in.

It does what rust/fence does, at the same instants, when `tick` is called: after every step
of the clock, and whenever a process of the tree has ended.  `next_s` tells the next instant
that matters, so that a simulator can jump there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from flightmode.errors import FenceRefused, FenceUnreachable
from flightmode.fence.permission import Grant, Permission
from flightmode.fence.port import (
    Exited,
    Fenced,
    FenceEvent,
    FenceReport,
    StartRequest,
    TreeEmpty,
)
from flightmode.model.server import FenceView, Role

QUIT_PATIENCE_S: Final = 2.0
MODES: Final = ("smart", "fast", "immediate")


class Tree(Protocol):
    """The processes of a pretended Postgres."""

    def start(self, request: StartRequest) -> int:
        """Its postmaster begins; its pid.  Raises FenceRefused("start_failed", …)."""

    def signal(self, mode: str) -> None:
        """The postmaster is asked to end: smart | fast | immediate.  It may take its time."""

    def kill(self) -> None:
        """SIGKILL for everything.  What hangs in the kernel may still take its time."""

    def postmaster(self) -> int | None:
        """The pid of the living postmaster."""

    def empty(self) -> bool:
        """Nothing of it lives, not even an orphan."""


class MemoryFence:
    """One node's fence.  `lost` makes it unreachable, as when its process is gone."""

    def __init__(
        self, now: Callable[[], float], wall: Callable[[], float], tree: Tree, node: str = "memory"
    ) -> None:
        self._now = now
        self._wall = wall
        self._tree = tree
        self._node = node
        self._started_s = now()
        self._permission = Permission()
        self._role: Role | None = None
        self._pid: int | None = None
        self._pid_started_s: float | None = None
        self._kill_s: float | None = None
        self._last_exit: Exited | None = None
        self._listeners: list[asyncio.Queue[FenceEvent | None]] = []
        self._heartbeats_to: tuple[str, ...] = ()
        self.lost = False
        self.tick()

    @property
    def heartbeats_to(self) -> tuple[str, ...]:
        """Whom it would send heartbeats to; an implementation in memory sends none."""
        return self._heartbeats_to

    # ------------------------------------------------------------------ time

    def next_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        instants = (self._permission.deadline_s, self._kill_s)
        return min((at_s for at_s in instants if at_s is not None), default=None)

    def tick(self) -> None:
        """Clocks first, then the children."""
        if self.lost:
            return
        now_s = self._now()
        primary = self._role is Role.PRIMARY
        why = self._permission.look(now_s, self._wall(), primary=primary)
        if why is not None:
            self._ended(why, stop=primary)
        if self._kill_s is not None and now_s >= self._kill_s:
            self._tree.kill()
        self._reap(now_s)

    def _ended(self, why: str, *, stop: bool) -> None:
        self._tell(Fenced(self._permission.term, why))
        if not stop or self._role is None or self._kill_s is not None:
            return
        if self._pid is None:
            self._kill_s = self._now()
            self._tree.kill()
        else:
            self._kill_s = self._now() + QUIT_PATIENCE_S
            self._tree.signal("immediate")

    def _reap(self, now_s: float) -> None:
        if self._pid is not None and self._tree.postmaster() != self._pid:
            self._last_exit = Exited(self._pid, None, None, now_s)
            self._pid = None
            self._tell(self._last_exit)
        if self._role is not None and self._pid is None and self._tree.empty():
            self._role = self._kill_s = None
            self._permission.stopped()
            self._tell(TreeEmpty())

    def die(self) -> None:
        """SIGKILL of the fence itself: Postgres gets SIGQUIT from the kernel."""
        self.lost = True
        self._tree.signal("immediate")
        for listener in self._listeners:
            listener.put_nowait(None)

    def _tell(self, event: FenceEvent) -> None:
        for listener in self._listeners:
            listener.put_nowait(event)

    # ------------------------------------------------------------------ requests

    async def start(self, request: StartRequest) -> int:
        self._look()
        if self._pid is not None:
            raise FenceRefused("already_running", f"postmaster {self._pid} runs already")
        if self._role is not None or not self._tree.empty():
            raise FenceRefused("remnants", "something of an earlier Postgres still lives")
        self._permit(request)
        pid = self._tree.start(request)
        self._pid, self._role, self._pid_started_s = pid, request.role, self._now()
        return pid

    def _permit(self, request: StartRequest) -> None:
        now_s, term = self._now(), request.term
        if request.role is Role.STANDBY:
            self._permission.follow(term)
            return
        if request.deadline_s is not None:
            self._permission.extend(term, request.deadline_s, now_s)
        elif term < self._permission.term:
            raise FenceRefused("older_term", f"term {self._permission.term} is known here")
        self._allowed(term)

    def _allowed(self, term: int) -> None:
        if not self._permission.allows(term, self._now()):
            raise FenceRefused("no_permission", f"nothing allows a primary in term {term}")

    async def extend(self, term: int, deadline_s: float) -> None:
        self._look()
        self._permission.extend(term, deadline_s, self._now())
        self.tick()

    async def lift(self, term: int) -> None:
        self._look()
        self._permission.lift(term)

    async def set_role(self, role: Role, term: int) -> None:
        self._look()
        if self._pid is None:
            raise FenceRefused("not_running", "no postmaster runs")
        if term < self._permission.term:
            raise FenceRefused("older_term", f"term {self._permission.term} is known here")
        if self._role is Role.PRIMARY and role is Role.STANDBY:
            raise FenceRefused("still_primary", "a primary becomes a standby only by a restart")
        if role is Role.PRIMARY:
            self._allowed(term)
        self._role = role

    async def stop(self, mode: str) -> None:
        self._look()
        if mode not in MODES:
            raise FenceRefused("bad_request", f"there is no mode {mode!r}")
        if self._pid is None:
            raise FenceRefused("not_running", "no postmaster runs")
        self._tree.signal(mode)
        self.tick()

    async def void(self) -> None:
        self._look()
        ended = self._permission.ended is not None
        if ended and (self._role is None or self._kill_s is not None):
            return
        why = self._permission.end("void", primary=self._role is Role.PRIMARY)
        self._ended(why, stop=True)
        self.tick()

    async def kill(self) -> None:
        self._look()
        if self._role is not None or not self._tree.empty():
            self._tree.kill()
        self.tick()

    async def send_heartbeats(self, to: tuple[str, ...]) -> None:
        self._look()
        self._heartbeats_to = to

    async def status(self) -> FenceView:
        self._look()
        permission = self._permission
        return FenceView(
            reachable=True,
            running=self._pid is not None,
            tree_empty=self._role is None and self._tree.empty(),
            role=self._role,
            term=permission.term,
            deadline_s=permission.deadline_s,
            lifted=permission.ended is None and permission.grant is Grant.LIFTED,
            expired=permission.ended is not None,
            exited_s=None if self._last_exit is None else self._last_exit.boottime_s,
        )

    async def report(self) -> FenceReport:
        permission = self._permission
        return FenceReport(
            view=await self.status(),
            node=self._node,
            version="memory",
            fence_pid=0,
            fence_started_s=self._started_s,
            pid=self._pid,
            started_s=None if self._pid is None else self._pid_started_s,
            start_ticks=None,
            verdict="expired" if permission.ended is not None else permission.grant.value,
            ended_by=permission.ended,
            mlocked=False,
            oom_protected=False,
            realtime=False,
            cgroup=False,
            port_cut=False,
            watchdog_timeout_s=None,
            missing=(),
            last_exit=self._last_exit,
            subscribers=len(self._listeners),
            heartbeats_to=self._heartbeats_to,
            heartbeats_sent=0,
            heartbeats_failed=0,
        )

    async def events(self) -> AsyncIterator[FenceEvent]:
        self._look()
        listener: asyncio.Queue[FenceEvent | None] = asyncio.Queue()
        self._listeners.append(listener)
        try:
            while (event := await listener.get()) is not None:
                yield event
        finally:
            self._listeners.remove(listener)
        raise FenceUnreachable("the fence has ended")

    def _look(self) -> None:
        """As the real one: no request is served before the clocks were looked at."""
        if self.lost:
            raise FenceUnreachable("the fence has ended")
        self.tick()
