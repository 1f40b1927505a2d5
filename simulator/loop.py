"""An asyncio event loop without a real clock: time jumps to the next timer.

Everything that waits, waits on a timer or on something that a timer will bring about.  So
when nothing is ready the loop goes to the earliest timer at once, and when there is none
either, nothing can ever happen again: that is a deadlock, and an error.
"""

import asyncio
from collections import deque
from typing import Any


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their instants; the same calls give the same order."""

    _scheduled: list[asyncio.TimerHandle]
    _ready: deque[asyncio.Handle]

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._clock_resolution = 1e-9
        self._selector = self

    def time(self) -> float:
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """What the base class calls where a real loop sleeps."""
        if timeout is None:
            raise Deadlock("nothing is ready and no timer is set")
        if timeout > 0:
            self._now_s = self._scheduled[0].when()
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no files to be ready."""

    def _write_to_self(self) -> None:
        """There is no other thread to be woken by."""
