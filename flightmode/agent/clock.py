"""The clocks that a node goes by."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks, because a person's time may jump and a deadline's must not."""

    def now_s(self) -> float:
        """CLOCK_BOOTTIME: does not jump, goes on while the machine is suspended."""

    def wall_s(self) -> float:
        """Unix time."""


class SystemClock:
    """The machine's clocks."""

    def now_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_s(self) -> float:
        return time.time()
