"""What every fence promises, held against the one in memory and against the real one.

Here the real one guards programs that behave like a postmaster in the way that a test is
about; tests/integration/test_fence.py does it with PostgreSQL.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import pytest

from flightmode.errors import FenceRefused, FenceUnreachable
from flightmode.fence.memory import MemoryFence
from flightmode.fence.port import Exited, Fence, Fenced, FenceEvent, StartRequest, TreeEmpty
from flightmode.model.server import FenceView, Role
from tests.integration.fence_process import FenceProcess, Program, boottime_s, eventually, proc

PLAIN = "exec sleep 600"
STUBBORN = "trap '' INT QUIT TERM; while :; do sleep 600; done"
# How late this process may notice what the fence has done, on a busy machine.
SLOW_S = 1.0
WITH_CHILD = "sleep 600 & exec sleep 601"


class World(Protocol):
    """A fence, and the power to make time pass and a postmaster die."""

    fence: Fence

    def now_s(self) -> float: ...

    def program(self, script: str) -> Program: ...

    async def crash(self) -> None:
        """SIGKILL for the postmaster alone."""

    async def ignores_signals(self, pid: int) -> None:
        """Wait until a stubborn program has become so."""

    async def has_child(self, pid: int) -> None:
        """Wait until a program that has one has begun it."""

    async def pass_time(self) -> None:
        """A few milliseconds."""

    async def lose(self) -> None:
        """SIGKILL for the fence."""


class RealWorld:
    """A process each."""

    def __init__(self, process: FenceProcess) -> None:
        self._process = process
        self.fence: Fence = process.client

    def now_s(self) -> float:
        return boottime_s()

    def program(self, script: str) -> Program:
        return self._process.program("/bin/sh", "-c", script)

    async def crash(self) -> None:
        self._process.kill_child((await self.fence.report()).pid)

    async def ignores_signals(self, pid: int) -> None:
        async def ignored() -> bool:
            return "SigIgn:\t0000000000000000" not in proc(pid, "status")

        await eventually("signals are ignored", ignored)

    async def has_child(self, pid: int) -> None:
        async def begun() -> bool:
            return proc(pid, f"task/{pid}/children") != ""

        await eventually("its child runs", begun)

    async def pass_time(self) -> None:
        await asyncio.sleep(0.005)

    async def lose(self) -> None:
        self._process.signal(9)
        await asyncio.to_thread(self._process.wait)


class PretendedTree:
    """A postmaster, and perhaps a child that outlives it."""

    def __init__(self) -> None:
        self._pids = itertools.count(100)
        self._pid: int | None = None
        self._script = PLAIN
        self._child = False

    def start(self, request: StartRequest) -> int:
        self._script = request.command.argv[-1]
        self._child = self._script == WITH_CHILD
        self._pid = next(self._pids)
        return self._pid

    def signal(self, mode: str) -> None:
        if self._script != STUBBORN:
            self._pid = None

    def crash(self) -> None:
        self._pid = None

    def kill(self) -> None:
        self._pid, self._child = None, False

    def postmaster(self) -> int | None:
        return self._pid

    def empty(self) -> bool:
        return self._pid is None and not self._child


class MemoryWorld:
    """Time that passes when it is told to."""

    def __init__(self, process: FenceProcess) -> None:
        self._process = process
        self._now_s = 1000.0
        self.wall_s = 1_700_000_000.0
        self._tree = PretendedTree()
        self._memory = MemoryFence(self.now_s, lambda: self.wall_s, self._tree)
        self.fence: Fence = self._memory

    def now_s(self) -> float:
        return self._now_s

    def program(self, script: str) -> Program:
        return self._process.program("/bin/sh", "-c", script)

    async def crash(self) -> None:
        self._tree.crash()
        self._memory.tick()

    async def ignores_signals(self, pid: int) -> None:
        """It always was."""

    async def has_child(self, pid: int) -> None:
        """It always had."""

    async def pass_time(self) -> None:
        self._now_s += 0.005
        self.wall_s += 0.005
        self._memory.tick()
        await asyncio.sleep(0)

    async def lose(self) -> None:
        self._memory.die()


@pytest.fixture(params=["memory", "real"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    process = FenceProcess()
    if request.param == "memory":
        yield MemoryWorld(process)
        process.close()
        return
    async with process:
        yield RealWorld(process)


async def until(
    world: World, what: str, holds: Callable[[], Awaitable[bool]], within_s: float = 10.0
) -> float:
    """Let time pass until it is so; when that was."""
    end_s = world.now_s() + within_s
    while not await holds():
        assert world.now_s() < end_s, f"not within {within_s} s: {what}"
        await world.pass_time()
    return world.now_s()


async def until_view(
    world: World, what: str, holds: Callable[[FenceView], bool], within_s: float = 10.0
) -> float:
    async def seen() -> bool:
        return holds(await world.fence.status())

    return await until(world, what, seen, within_s)


async def until_empty(world: World) -> float:
    return await until_view(world, "nothing is left", lambda view: view.tree_empty)


async def start(
    world: World,
    script: str = PLAIN,
    role: Role = Role.PRIMARY,
    term: int = 1,
    deadline_s: float | None = None,
) -> int:
    pid = await world.fence.start(StartRequest(world.program(script), role, term, deadline_s))
    if script == STUBBORN:
        await world.ignores_signals(pid)
    if script == WITH_CHILD:
        await world.has_child(pid)
    return pid


async def refusal(attempt: Awaitable[object]) -> str:
    """The reason why it was refused."""
    with pytest.raises(FenceRefused) as refused:
        await attempt
    return refused.value.reason


# ---------------------------------------------------------------- starting


async def test_a_new_fence_holds_nothing(world: World) -> None:
    view = await world.fence.status()
    assert view == FenceView(reachable=True, level=view.level)
    report = await world.fence.report()
    assert (report.verdict, report.pid, report.last_exit) == ("none", None, None)


async def test_a_primary_needs_a_permission(world: World) -> None:
    assert await refusal(start(world)) == "no_permission"
    await world.fence.lift(1)
    assert await refusal(start(world, term=2)) == "no_permission"
    pid = await start(world)
    report = await world.fence.report()
    assert (report.pid, report.verdict) == (pid, "lifted")
    assert (report.view.running, report.view.tree_empty) == (True, False)
    assert (report.view.role, report.view.term) == (Role.PRIMARY, 1)


async def test_a_start_can_bring_its_permission(world: World) -> None:
    deadline_s = world.now_s() + 60
    await start(world, term=3, deadline_s=deadline_s)
    view = await world.fence.status()
    assert (view.term, view.deadline_s, view.lifted) == (3, deadline_s, False)


async def test_a_start_with_a_deadline_in_the_past_is_refused(world: World) -> None:
    attempt = start(world, deadline_s=world.now_s() - 1)
    assert await refusal(attempt) == "past_deadline"
    assert (await world.fence.status()).tree_empty


async def test_a_standby_needs_no_permission_but_no_old_term(world: World) -> None:
    await world.fence.lift(3)
    assert await refusal(start(world, role=Role.STANDBY, term=2)) == "older_term"
    await start(world, role=Role.STANDBY, term=4)
    view = await world.fence.status()
    assert (view.role, view.term, view.lifted) == (Role.STANDBY, 4, False)


async def test_there_is_one_postgres_at_a_time(world: World) -> None:
    await world.fence.lift(1)
    await start(world)
    assert await refusal(start(world)) == "already_running"


async def test_older_terms_are_refused(world: World) -> None:
    await world.fence.lift(5)
    assert await refusal(world.fence.lift(4)) == "older_term"
    assert await refusal(world.fence.extend(4, world.now_s() + 60)) == "older_term"
    assert await refusal(start(world, term=4)) == "older_term"
    assert await refusal(start(world, term=4, deadline_s=world.now_s() + 60)) == "older_term"


# ---------------------------------------------------------------- ending


async def test_a_primary_ends_at_its_deadline_and_not_before(world: World) -> None:
    deadline_s = world.now_s() + 0.4
    await start(world, deadline_s=deadline_s)
    ended_s = await until_view(world, "it has ended", lambda view: not view.running)
    assert deadline_s <= ended_s < deadline_s + 0.3 + SLOW_S
    await until_empty(world)
    report = await world.fence.report()
    assert (report.verdict, report.ended_by) == ("expired", "deadline")
    assert (report.view.expired, report.view.deadline_s) == (True, None)


async def test_a_deadline_moves_either_way(world: World) -> None:
    began_s = world.now_s()
    await start(world, deadline_s=began_s + 0.3)
    await world.fence.extend(1, began_s + 60)
    await world.fence.extend(1, began_s + 0.6)
    ended_s = await until_empty(world)
    assert began_s + 0.6 <= ended_s < began_s + 0.9 + SLOW_S


async def test_a_lifted_deadline_ends_nothing(world: World) -> None:
    deadline_s = world.now_s() + 0.2
    pid = await start(world, deadline_s=deadline_s)
    await world.fence.lift(1)

    async def later() -> bool:
        return world.now_s() > deadline_s + 0.3

    await until(world, "later", later)
    assert (await world.fence.report()).pid == pid


async def test_a_standby_goes_on_after_a_deadline(world: World) -> None:
    pid = await start(world, role=Role.STANDBY)
    await world.fence.extend(1, world.now_s() + 0.2)
    await until_view(world, "it has expired", lambda view: view.expired)
    await world.pass_time()
    assert (await world.fence.report()).pid == pid
    await world.fence.extend(1, world.now_s() + 60)
    assert not (await world.fence.status()).expired


async def test_a_stubborn_primary_is_killed_two_seconds_later_and_nothing_revives_it(
    world: World,
) -> None:
    deadline_s = world.now_s() + 0.3
    await start(world, STUBBORN, deadline_s=deadline_s)
    await until_view(world, "it has expired", lambda view: view.expired)
    assert (await world.fence.status()).running
    assert await refusal(world.fence.extend(1, world.now_s() + 60)) == "not_stopped"
    assert await refusal(world.fence.lift(2)) == "not_stopped"
    ended_s = await until_empty(world)
    assert deadline_s + 2.0 <= ended_s < deadline_s + 2.4 + SLOW_S
    assert await refusal(start(world)) == "no_permission"
    await world.fence.extend(2, world.now_s() + 60)
    await start(world, term=2)


async def test_void_ends_whatever_runs(world: World) -> None:
    for term, role in ((1, Role.PRIMARY), (2, Role.STANDBY)):
        await world.fence.lift(term)
        await start(world, role=role, term=term)
        await world.fence.void()
        await world.fence.void()
        await until_empty(world)
        assert (await world.fence.report()).ended_by == "void"


async def test_asking_again_to_void_gives_no_more_time(world: World) -> None:
    await world.fence.lift(1)
    await start(world, STUBBORN)
    began_s = world.now_s()

    async def asked_again() -> bool:
        await world.fence.void()
        return (await world.fence.status()).tree_empty

    ended_s = await until(world, "nothing is left", asked_again)
    assert began_s + 2.0 <= ended_s < began_s + 2.4 + SLOW_S


async def test_a_stop_ends_the_postmaster_and_keeps_the_permission(world: World) -> None:
    await world.fence.lift(1)
    assert await refusal(world.fence.stop("fast")) == "not_running"
    for mode in ("smart", "fast", "immediate"):
        await start(world)
        await world.fence.stop(mode)
        await until_empty(world)
    assert (await world.fence.status()).lifted


async def test_kill_ends_what_ignores_everything_else(world: World) -> None:
    await world.fence.kill()
    await world.fence.lift(1)
    await start(world, STUBBORN)
    await world.fence.stop("immediate")
    await world.pass_time()
    assert (await world.fence.status()).running
    await world.fence.kill()
    await until_empty(world)


async def test_what_outlives_the_postmaster_blocks_a_start_until_it_is_killed(
    world: World,
) -> None:
    await world.fence.lift(1)
    pid = await start(world, WITH_CHILD)
    await world.crash()
    await until_view(world, "the postmaster is gone", lambda view: not view.running)
    report = await world.fence.report()
    assert not report.view.tree_empty
    assert report.last_exit is not None
    assert report.last_exit.pid == pid
    assert report.view.exited_s == report.last_exit.boottime_s
    assert await refusal(start(world)) == "remnants"
    await world.fence.kill()
    await until_empty(world)
    await start(world)


# ---------------------------------------------------------------- roles


async def test_a_standby_becomes_a_primary_only_with_a_permission(world: World) -> None:
    assert await refusal(world.fence.set_role(Role.PRIMARY, 1)) == "not_running"
    await start(world, role=Role.STANDBY)
    assert await refusal(world.fence.set_role(Role.PRIMARY, 1)) == "no_permission"
    await world.fence.lift(2)
    assert await refusal(world.fence.set_role(Role.PRIMARY, 1)) == "older_term"
    assert await refusal(world.fence.set_role(Role.PRIMARY, 3)) == "no_permission"
    await world.fence.set_role(Role.PRIMARY, 2)
    await world.fence.set_role(Role.PRIMARY, 2)
    assert (await world.fence.status()).role is Role.PRIMARY
    assert await refusal(world.fence.set_role(Role.STANDBY, 2)) == "still_primary"


async def test_a_promoted_standby_ends_at_its_deadline(world: World) -> None:
    await start(world, role=Role.STANDBY)
    deadline_s = world.now_s() + 0.3
    await world.fence.extend(2, deadline_s)
    await world.fence.set_role(Role.PRIMARY, 2)
    ended_s = await until_empty(world)
    assert deadline_s <= ended_s < deadline_s + 0.3 + SLOW_S


# ---------------------------------------------------------------- events


async def listen(fence: Fence, heard: list[FenceEvent]) -> None:
    async for event in fence.events():
        heard.append(event)


async def test_events_come_in_the_order_of_what_happened(world: World) -> None:
    heard: list[FenceEvent] = []
    task = asyncio.create_task(listen(world.fence, heard))

    async def subscribed() -> bool:
        return (await world.fence.report()).subscribers == 1

    await until(world, "subscribed", subscribed)
    pid = await start(world, term=7, deadline_s=world.now_s() + 0.2)

    async def complete() -> bool:
        return len(heard) >= 3

    await until(world, "three events", complete)
    fenced, exited, empty = heard
    assert fenced == Fenced(7, "deadline")
    assert isinstance(exited, Exited)
    assert exited.pid == pid
    assert empty == TreeEmpty()

    await world.lose()
    with pytest.raises(FenceUnreachable):
        await asyncio.wait_for(task, 5)
    with pytest.raises(FenceUnreachable):
        await world.fence.status()


# ---------------------------------------------------------------- what only memory can show


@pytest.fixture
async def pretended() -> AsyncIterator[MemoryWorld]:
    process = FenceProcess()
    yield MemoryWorld(process)
    process.close()


async def test_a_clock_jump_ends_an_armed_permission(pretended: MemoryWorld) -> None:
    await start(pretended, deadline_s=pretended.now_s() + 60)
    pretended.wall_s += 0.6
    await pretended.pass_time()
    report = await pretended.fence.report()
    assert (report.ended_by, report.view.running) == ("clock jump", False)


async def test_a_clock_jump_leaves_a_lifted_permission(pretended: MemoryWorld) -> None:
    await pretended.fence.lift(1)
    await start(pretended)
    pretended.wall_s += 3600
    await pretended.pass_time()
    assert (await pretended.fence.status()).running
