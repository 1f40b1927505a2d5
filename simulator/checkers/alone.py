"""I6: who is alone is not fenced."""

from collections.abc import Iterator

from flightmode.model.cluster import Mode
from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation
from simulator.history import Began, History, PermissionEnded, StateKnown


def who_is_alone_is_not_fenced(history: History, policy: Policy) -> Iterator[Violation]:
    """I6: neither a deadline nor its agent ends a leader that knows that it is alone."""
    alone_since_s: dict[str, float] = {}
    for fact in history.facts:
        match fact:
            case StateKnown():
                if fact.state is not None and fact.state.mode is Mode.SOLO:
                    alone_since_s.setdefault(fact.node, fact.at_s)
                else:
                    alone_since_s.pop(fact.node, None)
            case Began():
                alone_since_s.pop(fact.node, None)
            case PermissionEnded(why="deadline" | "void", primary=True, agent_well=True):
                since_s = alone_since_s.get(fact.node, fact.at_s)
                leads = fact.state is not None and fact.state.leader == fact.node
                if leads and fact.at_s - since_s > 1.0:
                    what = f"{fact.node} was fenced ({fact.why}), alone since {since_s:.1f}"
                    yield Violation(fact.at_s, "I6", what)
            case _:
                pass
