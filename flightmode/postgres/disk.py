"""Questions to a file system that may hang with its disk: a look waits for none of them (S10)."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from flightmode.errors import DataUnreadable

T = TypeVar("T")

WITHIN_S: Final = 0.4


class Disk:
    """Asks in threads.  A question that is still open is not put again: each holds a thread."""

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Future[Any]] = {}

    async def ask(self, what: str, call: Callable[[], T]) -> T:
        """The answer, of now.  Raises DataUnreadable when there is none in time, and what `call`
        raises."""
        before = self._asked.get(what)
        if before is not None and not before.done():
            raise DataUnreadable(f"the disk has not answered yet: {what}")
        asking = asyncio.ensure_future(asyncio.to_thread(call))
        self._asked[what] = asking
        await asyncio.wait({asking}, timeout=WITHIN_S)
        if not asking.done():
            asking.add_done_callback(_forget)
            raise DataUnreadable(f"the disk did not answer within {WITHIN_S:g} s: {what}")
        return asking.result()


def _forget(asking: "asyncio.Future[T]") -> None:
    """What comes late is an answer to a question of before."""
    if not asking.cancelled():
        asking.exception()
