"""S7: who is given the term in a switchover holds everything."""

from collections.abc import Iterator

from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation, changes_of_leader
from simulator.history import History


def a_switchover_loses_nothing(history: History, policy: Policy) -> Iterator[Violation]:
    """S7: also what nobody was told of: it was proven that the target has flushed all of it."""
    for fact, new in changes_of_leader(history):
        if fact.gave is None or fact.holds is None:
            continue
        missing = fact.gave - fact.holds
        if missing:
            what = f"{fact.node} gave the term to {new.leader}, which lacks {len(missing)} rows"
            yield Violation(fact.at_s, "S7", what)
