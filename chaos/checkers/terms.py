"""What the store told: a term has one leader, and terms grow one by one (I1, I4)."""

from collections.abc import Iterator
from itertools import pairwise

from chaos.checkers.violation import Violation
from chaos.history import History


def check(history: History) -> Iterator[Violation]:
    """The states are read linearizably, in one order; some in between may have been missed."""
    leaders: dict[int, str] = {}
    for state in history.states:
        known = leaders.setdefault(state.term, state.leader)
        if known != state.leader:
            yield Violation("two leaders", f"term {state.term}: {known}, then {state.leader}")
    for before, after in pairwise(history.states):
        if after.term < before.term:
            yield Violation("term", f"term {after.term} came after term {before.term}")
