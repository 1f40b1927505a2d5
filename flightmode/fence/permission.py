"""Until when Postgres may run as a primary: the rule of rust/fence/src/deadline.rs, in Python.

The simulator's fence goes by it, so that what the simulator finds holds for the real one;
tests/contract/test_fence.py asks both the same questions.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from flightmode.errors import FenceRefused

JUMP_S = 0.5
"""How far the two clocks may move apart between two looks (S1)."""


class Grant(StrEnum):
    """What was granted."""

    NOTHING = "none"
    ARMED = "armed"
    LIFTED = "lifted"


@dataclass(slots=True)
class Permission:
    """The permission of one node.  Raises FenceRefused where a grant is not taken."""

    term: int = 0
    grant: Grant = Grant.NOTHING
    until_s: float = 0.0
    ended: str | None = None
    """Why it is not in force any more: deadline | clock jump | void"""
    not_stopped: bool = False
    """What ran as a primary when it ended may still live."""
    _offset_s: float | None = None

    @property
    def deadline_s(self) -> float | None:
        """The instant at which somebody must look again."""
        return self.until_s if self.grant is Grant.ARMED and self.ended is None else None

    def allows(self, term: int, now_s: float) -> bool:
        granted = self.grant is Grant.LIFTED or (self.grant is Grant.ARMED and now_s < self.until_s)
        return granted and self.ended is None and term == self.term

    def look(self, now_s: float, wall_s: float, *, primary: bool) -> str | None:
        """Look at both clocks, BEFORE any request is served; why it has just ended, if it has."""
        offset_s = wall_s - now_s
        moved_s = 0.0 if self._offset_s is None else abs(offset_s - self._offset_s)
        self._offset_s = offset_s
        if self.deadline_s is None:
            return None
        if moved_s > JUMP_S:
            return self.end("clock jump", primary=primary)
        if now_s >= self.deadline_s:
            return self.end("deadline", primary=primary)
        return None

    def extend(self, term: int, deadline_s: float, now_s: float) -> None:
        if not math.isfinite(deadline_s):
            raise FenceRefused("bad_request", "the deadline is no finite number")
        self._may_grant(term)
        in_force = term == self.term and self.ended is None and self.grant is not Grant.NOTHING
        if deadline_s <= now_s and not in_force:
            late_s = now_s - deadline_s
            raise FenceRefused("past_deadline", f"that deadline was {late_s:.3f} s ago")
        self._set(term, Grant.ARMED, deadline_s)

    def lift(self, term: int) -> None:
        self._may_grant(term)
        self._set(term, Grant.LIFTED)

    def follow(self, term: int) -> None:
        """Somebody else leads in this term: what was granted for an older one is over."""
        self._may_grant(term)
        if term > self.term:
            self._set(term, Grant.NOTHING)

    def end(self, why: str, *, primary: bool) -> str:
        self.ended = why
        self.not_stopped |= primary
        return why

    def stopped(self) -> None:
        """Everything that ran is gone: a new grant may be taken."""
        self.not_stopped = False

    def _set(self, term: int, grant: Grant, until_s: float = 0.0) -> None:
        self.term, self.grant, self.until_s, self.ended = term, grant, until_s, None

    def _may_grant(self, term: int) -> None:
        if term < self.term:
            raise FenceRefused("older_term", f"term {self.term} is known here")
        if self.not_stopped:
            raise FenceRefused("not_stopped", "what ran under the last permission is not gone yet")
