"""I7: a pause is kept."""

from collections.abc import Iterator

from flightmode.model.policy import Policy
from simulator.checkers.judging import FORCED, Violation
from simulator.history import History, PermissionEnded, StateChanged
from simulator.host import WALL_S


def a_pause_is_kept(history: History, policy: Policy) -> Iterator[Violation]:
    """I7: while paused nobody else becomes the leader, and nothing is fenced by an agent."""
    for fact in history.of(StateChanged):
        old, new = fact.old, fact.new
        if old is None or new is None or old.pause is None or FORCED in new.reason:
            continue
        if new.leader != old.leader and fact.true_wall_s < old.pause.until_wall_s:
            what = f"{new.leader} took over from {old.leader} in a pause"
            yield Violation(fact.at_s, "I7", what)
    for ended in history.of(PermissionEnded):
        pause = None if ended.state is None else ended.state.pause
        if pause is None or not ended.primary or ended.why != "void":
            continue
        # Wall clocks differ by a little; a jump of them is a fault of its own.
        if WALL_S + ended.at_s < pause.until_wall_s - 35.0:
            yield Violation(ended.at_s, "I7", f"{ended.node} was fenced in a pause")
