"""I7: a pause is kept."""

from collections.abc import Iterator

from flightmode.model.cluster import Pause
from flightmode.model.policy import Policy
from simulator.checkers.judging import FORCED, Violation
from simulator.history import History, PermissionEnded, StateChanged, StateKnown

# So long after its leader learned of a pause, the fence has been told of it.
_TOLD_S = 1.0
# While etcd is silent nobody corrects the deadline: by so much a drifting clock may be early.
_DRIFT_S = 2.5
# A jump of the clocks is a fault of its own, and voids every permission (S1), also a long one.
_OURS = ("deadline", "void")


def a_pause_is_kept(history: History, policy: Policy) -> Iterator[Violation]:
    """I7: while paused nobody else becomes the leader, and no leader is fenced."""
    yield from _changes(history)
    yield from _fencings(history)


def _changes(history: History) -> Iterator[Violation]:
    for fact in history.of(StateChanged):
        old, new = fact.old, fact.new
        if old is None or new is None or old.pause is None or FORCED in new.reason:
            continue
        if new.leader != old.leader and fact.true_wall_s < old.pause.until_wall_s:
            what = f"{new.leader} took over from {old.leader} in a pause"
            yield Violation(fact.at_s, "I7", what)


def _fencings(history: History) -> Iterator[Violation]:
    known_since_s: dict[str, float] = {}
    for fact in history.facts:
        match fact:
            case StateKnown():
                if fact.state is not None and fact.state.pause is not None:
                    known_since_s.setdefault(fact.node, fact.at_s)
                else:
                    known_since_s.pop(fact.node, None)
            case PermissionEnded(primary=True) if fact.why in _OURS:
                since_s = known_since_s.get(fact.node)
                pause = _pause_of(fact)
                if since_s is None or pause is None or fact.at_s - since_s < _TOLD_S:
                    continue
                left_s = pause.until_wall_s - fact.wall_s
                if left_s > _DRIFT_S:
                    what = f"{fact.node} was fenced ({fact.why}) {left_s:.1f} s before a pause ends"
                    yield Violation(fact.at_s, "I7", what)
            case _:
                pass


def _pause_of(fact: PermissionEnded) -> Pause | None:
    """The pause in which the leader was fenced, if its agent and its fence ran well."""
    state = fact.state
    if state is None or state.leader != fact.node or not (fact.agent_well and fact.fence_well):
        return None
    return state.pause
