"""I10: the only copy is never thrown away."""

from collections.abc import Iterator

from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation
from simulator.history import Acknowledged, Discarded, History


def no_copy_is_thrown_away(history: History, policy: Policy) -> Iterator[Violation]:
    """I10: acknowledged rows that a rewind or a copy takes away are in what takes their place.

    Also after a forced failover: a person accepts that they are missing, not that they are deleted.
    """
    told: set[int] = set()
    for fact in history.facts:
        match fact:
            case Acknowledged():
                told.add(fact.row)
            case Discarded():
                lost = (fact.lost & told) - fact.source
                if lost:
                    what = f"{fact.how} on {fact.node} threw away {len(lost)} acknowledged rows"
                    yield Violation(fact.at_s, "I10", what)
            case _:
                pass
