"""Timeline histories, and where two of them part (Postgres manual, 26.3.5 Timelines)."""

from dataclasses import dataclass

from flightmode.model.lsn import NOWHERE, Lsn


@dataclass(frozen=True, slots=True)
class Switch:
    """`timeline` was left at `end` for the next one (a line of a .history file)."""

    timeline: int
    end: Lsn


@dataclass(frozen=True, slots=True)
class History:
    """The timeline a server is on, and the ones it came through, oldest first."""

    timeline: int
    ancestors: tuple[Switch, ...] = ()

    def end_of(self, timeline: int) -> Lsn | None:
        """Up to where WAL of `timeline` belongs to this history.

        None: to its very end (it is the current timeline).  A timeline that is not
        part of this history belongs up to nowhere: Lsn(0).
        """
        if timeline == self.timeline:
            return None
        for switch in self.ancestors:
            if switch.timeline == timeline:
                return switch.end
        return NOWHERE

    def contains(self, timeline: int, position: Lsn) -> bool:
        """Whether a server at `position` of `timeline` is an ancestor of (or on) this history."""
        end = self.end_of(timeline)
        return end is None or position <= end
