"""An asyncio event loop without a real clock: time jumps to the next timer.

Everything that waits, waits on a timer or on something that a timer will bring about.  So
when nothing is ready the loop goes to the earliest timer at once, and when there is none
either, nothing can ever happen again: that is a deadlock, and an error.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
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

    now_s: float
    """As `time` tells it, for whoever asks often."""
    get_debug = bool
    """False, without a line of Python: each future asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._due: deque[Callback] = deque()
        self._timers: list[list[Any]] = []
        self._order = count()

    def time(self) -> float:
        return self.now_s

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = Callback((when, next(self._order), callback, args, context))
        heappush(self._timers, timer)
        return timer  # type: ignore[return-value]

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = Callback((self.now_s + delay, next(self._order), callback, args, context))
        heappush(self._timers, timer)
        return timer  # type: ignore[return-value]

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        due = Callback((self.now_s, 0, callback, args, context))
        self._due.append(due)
        return due  # type: ignore[return-value]

    def after(self, delay_s: float, act: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        """As `call_later`, for good: most timers of a run are never taken back."""
        heappush(self._timers, [self.now_s + delay_s, next(self._order), act, args, None])

    async def sleep(self, delay_s: float) -> None:
        """As `asyncio.sleep`, for what the world itself waits for."""
        over: asyncio.Future[None] = asyncio.Future(loop=self)
        timer = [self.now_s + delay_s, next(self._order), over.set_result, (None,), None]
        heappush(self._timers, timer)
        try:
            await over
        except asyncio.CancelledError:
            timer[2] = None
            raise

    def _run_once(self) -> None:
        """Until it is to stop: what is ready now, or else whatever comes next in time."""
        due, timers = self._due, self._timers
        while not self._stopping:
            if due:
                _, _, callback, args, context = due.popleft()
                if callback is None:
                    continue
            else:
                if not timers:
                    raise Deadlock("nothing is ready and no timer is set")
                at_s, _, callback, args, context = heappop(timers)
                if callback is None:
                    continue
                if at_s > self.now_s:
                    self.now_s = at_s
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

    def _write_to_self(self) -> None:
        """There is no other thread to be woken by."""
