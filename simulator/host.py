"""A machine: it has power or not, it may stand still, and it has clocks of its own.

Whatever a machine does later is asked of it by `later`: nothing of it happens after its
power went, and all of it waits while the machine stands still.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from simulator.loop import VirtualLoop

WALL_S = 1_800_000_000.0
"""Unix time when the simulation begins."""


class Host:
    """One machine of the cluster."""

    def __init__(self, name: str, loop: VirtualLoop, dice: Random) -> None:
        self.name = name
        self.loop = loop
        self.life = 0
        """Counts boots: what was to happen in an earlier one does not."""
        self.up = True
        self.frozen = False
        self.stalled = False
        """Its disk answers nothing."""
        self._dice = dice
        self._waiting: list[tuple[int, Callable[..., object], tuple[Any, ...]]] = []
        self._thawed: asyncio.Future[None] | None = None
        self._frozen_at_s = 0.0
        self.clock = HostClock(loop, dice)

    def later(self, delay_s: float, act: Callable[..., object], *args: Any) -> None:
        """Do it after so long, if this life of the machine lasts."""
        self.loop.after(delay_s, self._fire, self.life, act, args)

    def _fire(self, life: int, act: Callable[..., object], args: tuple[Any, ...]) -> None:
        if life != self.life:
            return
        if self.frozen:
            self._waiting.append((life, act, args))
        else:
            act(*args)

    async def awake(self) -> None:
        """Until the machine moves."""
        while self.frozen:
            if self._thawed is None:
                self._thawed = self.loop.create_future()
            await asyncio.shield(self._thawed)

    def freeze(self) -> None:
        """Stand still: nothing runs, what arrives waits."""
        self.frozen = True
        self._frozen_at_s = self.loop.time()

    def stood_s(self) -> float:
        """For how long it has stood still."""
        return self.loop.time() - self._frozen_at_s

    def thaw(self, *, clock_stood: bool) -> None:
        """Go on; `clock_stood`: CLOCK_BOOTTIME did not count the time, unix time did."""
        if not self.frozen:
            return
        self.frozen = False
        if clock_stood:
            self.clock.lose(self.loop.time() - self._frozen_at_s)
        if self._thawed is not None:
            self._thawed.set_result(None)
            self._thawed = None
        waiting, self._waiting = self._waiting, []
        for life, act, args in waiting:
            self.loop.call_soon(self._fire, life, act, args)

    def power_off(self) -> None:
        """Everything that ran is gone in this instant."""
        self.thaw(clock_stood=False)
        self.up = False
        self.life += 1

    def power_on(self) -> None:
        self.up = True
        self.clock.boot()


class HostClock:
    """The machine's two clocks; a `Clock` of the agent."""

    def __init__(self, loop: VirtualLoop, dice: Random) -> None:
        self._loop = loop
        self._dice = dice
        self.rate = 1.0
        """How fast this machine's clocks go; the margin of a permission covers a little of it."""
        self.wall_off_s = 0.0
        self.boot()

    def boot(self) -> None:
        """CLOCK_BOOTTIME starts over."""
        self._began_s = self._loop.time()
        self._base_s = self._dice.uniform(1.0, 100.0)

    def now_s(self) -> float:
        return self._base_s + (self._loop.now_s - self._began_s) * self.rate

    def wall_s(self) -> float:
        return WALL_S + self._loop.now_s + self.wall_off_s

    def lose(self, seconds: float) -> None:
        """CLOCK_BOOTTIME did not count these."""
        self._base_s -= seconds * self.rate

    def until_s(self, at_s: float) -> float:
        """How long (by the simulation) until this clock's CLOCK_BOOTTIME shows `at_s`."""
        return max(0.0, (at_s - self.now_s()) / self.rate)
