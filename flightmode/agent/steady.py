"""Whether this machine has stood still: then what it was allowed before is over (S1).

A virtual machine that is paused misses the time in which others count its silence, and
CLOCK_BOOTTIME with it; the wall clock is put right when it wakes.  The fence sees that for
itself and ends Postgres; here it is for what the agent still has in hand, a renewal or a promise
that was asked for before, which must not become a deadline now.
"""

from flightmode.agent.clock import Clock

# The same as the fence's: what clocks may move apart by themselves is far less.
_JUMP_S = 0.5
_EVER_S = -1e9


class Steadiness:
    """Looked at often: a clock that is put right by and by is no jump."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._apart_s = clock.wall_s() - clock.now_s()
        self.since_s = _EVER_S
        """What was sent before that counts for nothing any more, in `now_s`."""

    def look(self) -> float:
        """`since_s`, as of now."""
        now_s = self._clock.now_s()
        apart_s = self._clock.wall_s() - now_s
        if abs(apart_s - self._apart_s) > _JUMP_S:
            self.since_s = now_s
        self._apart_s = apart_s
        return self.since_s
