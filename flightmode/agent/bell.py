"""What wakes the loop before its time: a watch, an exit of the postmaster, the end of a job."""

import asyncio


class Bell:
    """Rung from anywhere in the event loop; a ring is never lost, many rings are one."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, timeout_s: float) -> None:
        """Until rung, or for `timeout_s` at the longest."""
        timer = asyncio.get_running_loop().call_later(timeout_s, self.ring)
        try:
            await self._rung.wait()
        finally:
            timer.cancel()
            self._rung.clear()
