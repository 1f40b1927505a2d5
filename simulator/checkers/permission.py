"""I8: permission ends in time."""

from collections.abc import Iterator

from flightmode.model.cluster import ClusterState
from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation
from simulator.history import Awoke, Extended, History, Promised, StateChanged

_SILENT = "has been silent"
_RATE = 1.03


def permission_ends_in_time(history: History, policy: Policy) -> Iterator[Violation]:
    """I8: no deadline lies beyond what the last committed renewal allows.

    And what it is for: when somebody takes over from a silent leader, that has stopped.
    """
    last: dict[tuple[str, int, int], float] = {}
    paused_until: dict[int, float] = {}
    promises: dict[tuple[str, int], float] = {}
    for fact in history.facts:
        match fact:
            case StateChanged(new=ClusterState() as new):
                offered = fact.old is not None and fact.old.handover is not None
                if fact.ran and (_SILENT in new.reason or offered):
                    how = "by a handover" if offered else "by silence"
                    what = f"{fact.node} took over {how} and the old primary still runs"
                    yield Violation(fact.at_s, "I8", what)
                if new.leader == fact.node:
                    last[fact.node, fact.life, new.term] = fact.sent_s
                if new.pause is not None:
                    paused_until[new.term] = new.pause.until_wall_s
            case Promised():
                known_s = promises.get((fact.to, fact.term), 0.0)
                promises[fact.to, fact.term] = max(known_s, fact.until_s)
            case Awoke(runs=True):
                what = f"{fact.node} stood still and runs on by a deadline of before"
                yield Violation(fact.at_s, "I8", what)
            case Extended():
                sent_s = last.get((fact.node, fact.life, fact.term))
                allowed_s = -1.0 if sent_s is None else sent_s + policy.ttl_s * (1 - policy.margin)
                if fact.term in paused_until:
                    paused_s = fact.now_s + paused_until[fact.term] - fact.wall_s + 1.0
                    allowed_s = max(allowed_s, paused_s)
                promised_s = promises.get((fact.node, fact.term), 0.0) - fact.at_s
                # Clocks differ in rate by less than the margin; that of the simulation has none.
                allowed_s = max(allowed_s, fact.now_s + promised_s * _RATE)
                if fact.deadline_s > allowed_s + 1e-6:
                    what = (
                        f"{fact.node} may run until {fact.deadline_s:.3f} of its clock in term "
                        f"{fact.term}; its last renewal allows {allowed_s:.3f}"
                    )
                    yield Violation(fact.at_s, "I8", what)
            case _:
                pass
