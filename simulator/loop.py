"""An asyncio event loop without a real clock: time jumps to the next timer.

Everything that waits, waits on a timer or on something that a timer will bring about.  So
when nothing is ready the loop goes to the earliest timer at once, and when there is none
either, nothing can ever happen again: that is a deadlock, and an error.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from contextvars import Context
from itertools import count
from typing import Any, TypeVarTuple, Unpack, cast

Ts = TypeVarTuple("Ts")


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set."""


class Callback(list[Any]):
    """When, in which order, what, with what, in which context.

    A list, since most of a run is these: lists are made and compared without a line of Python.
    What names no context is called in that of the loop: nothing here keeps a variable of one.
    """

    __slots__ = ()

    def cancel(self) -> None:
        self[2] = None

    def cancelled(self) -> bool:
        return self[2] is None

    def when(self) -> float:
        return cast(float, self[0])


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their instants, and in the order in which they were set."""

    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._due: deque[Callback] = deque()
        self._timers: list[Callback] = []
        self._order = count()

    def time(self) -> float:
        return self._now_s

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = Callback((when, next(self._order), callback, args, context))
        heapq.heappush(self._timers, timer)
        return timer  # type: ignore[return-value]

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = Callback((self._now_s + delay, next(self._order), callback, args, context))
        heapq.heappush(self._timers, timer)
        return timer  # type: ignore[return-value]

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        due = Callback((self._now_s, 0, callback, args, context))
        self._due.append(due)
        return due  # type: ignore[return-value]

    def _run_once(self) -> None:
        """Until it is to stop: what is ready now, or else whatever comes next in time."""
        due = self._due
        while not self._stopping:
            _, _, callback, args, context = due.popleft() if due else self._next()
            if callback is None:
                continue
            try:
                if context is None:
                    callback(*args)
                else:
                    context.run(callback, *args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                message = f"Exception in callback {callback!r}"
                self.call_exception_handler({"message": message, "exception": error})

    def _next(self) -> Callback:
        if not self._timers:
            raise Deadlock("nothing is ready and no timer is set")
        timer = heapq.heappop(self._timers)
        if timer[2] is not None and timer[0] > self._now_s:
            self._now_s = timer[0]
        return timer

    def _write_to_self(self) -> None:
        """There is no other thread to be woken by."""
