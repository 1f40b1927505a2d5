"""A planned stop: who is waited for, and who is not."""

import pytest

from flightmode.agent.stopping import stop_postgres
from flightmode.errors import ServerSilent
from flightmode.fence.memory import MemoryFence
from flightmode.fence.port import StartRequest
from flightmode.model.action import StopPostgres
from flightmode.model.server import Role


class Machine:
    """A postmaster that ends when it is asked to; and what was done there, in order."""

    def __init__(self, *, answers: bool = True) -> None:
        self.happened: list[str] = []
        self.answers, self.pid = answers, 0

    def now_s(self) -> float:
        return 100.0

    def wall_s(self) -> float:
        return 1e9

    # ------------------------------------------------------------------ the fence's tree

    def start(self, request: StartRequest) -> int:
        self.pid = 7
        return self.pid

    def signal(self, mode: str) -> None:
        self.happened.append(mode)
        self.pid = 0

    def kill(self) -> None:
        self.signal("kill")

    def postmaster(self) -> int | None:
        return self.pid or None

    def empty(self) -> bool:
        return self.pid == 0

    # ------------------------------------------------------------------ Postgres

    async def settle(self, within_s: float) -> None:
        self.happened.append(f"settle within {within_s:g} s")
        if not self.answers:
            raise ServerSilent("no answer")

    async def end_walsenders(self, keep: tuple[str, ...]) -> None:
        self.happened.append("end walsenders")


async def stopped(action: StopPostgres, *, answers: bool = True) -> list[str]:
    """What happened until nothing of Postgres ran."""
    machine = Machine(answers=answers)
    fence = MemoryFence(machine.now_s, machine.wall_s, machine)
    await fence.start(StartRequest(None, Role.STANDBY, 3, None))
    await stop_postgres(action, machine, fence, machine)
    assert machine.empty()
    return machine.happened


async def test_what_is_under_way_may_end_before_postgres_is_told_to() -> None:
    planned = StopPostgres(3, fast=True, patience_s=2.0, settle_s=0.5)
    assert await stopped(planned) == ["settle within 0.5 s", "fast"]


async def test_a_postgres_that_does_not_answer_is_stopped_all_the_same() -> None:
    planned = StopPostgres(3, fast=True, patience_s=2.0, settle_s=0.5)
    assert await stopped(planned, answers=False) == ["settle within 0.5 s", "fast"]


@pytest.mark.parametrize("fast", [True, False])
async def test_where_no_client_is_to_be_spared_nobody_waits(fast: bool) -> None:
    assert await stopped(StopPostgres(3, fast=fast, patience_s=2.0)) == [
        "fast" if fast else "immediate"
    ]
