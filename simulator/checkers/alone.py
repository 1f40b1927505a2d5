"""I6: who is alone is not fenced."""

from collections.abc import Iterator

from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation
from simulator.checkers.solitude import Solitude
from simulator.history import History, PermissionEnded

# So long after it has learned that, its agent has told the fence.
_TOLD_S = 1.0


def who_is_alone_is_not_fenced(history: History, policy: Policy) -> Iterator[Violation]:
    """I6: neither a deadline nor its agent ends a leader that knows that it is alone."""
    alone = Solitude()
    for fact in history.facts:
        alone.heard(fact)
        match fact:
            case PermissionEnded(why="deadline" | "void", primary=True, agent_well=True):
                since_s = alone.since_s(fact.node)
                leads = fact.state is not None and fact.state.leader == fact.node
                if leads and since_s is not None and fact.at_s - since_s > _TOLD_S:
                    what = f"{fact.node} was fenced ({fact.why}), alone since {since_s:.1f}"
                    yield Violation(fact.at_s, "I6", what)
            case _:
                pass
