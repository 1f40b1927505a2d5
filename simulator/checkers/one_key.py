"""I4: leader, term, mode and sync set change only together."""

from collections.abc import Iterator

from flightmode.model.cluster import Mode
from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation
from simulator.history import History, StateChanged


def one_key_one_swap(history: History, policy: Policy) -> Iterator[Violation]:
    """I4: leader, term, mode and sync set change together, by compare-and-swap."""
    for fact in history.of(StateChanged):
        for what in _faults_of_swap(fact):
            yield Violation(fact.at_s, "I4", what)


def _faults_of_swap(fact: StateChanged) -> Iterator[str]:
    old, new = fact.old, fact.new
    if not fact.compared:
        yield f"{fact.node} wrote the state without comparing"
    if new is None:
        yield f"{fact.node} deleted the state"
        return
    if (new.mode is Mode.SYNC) != bool(new.sync) or new.leader in new.sync:
        yield f"mode {new.mode} with sync set {new.sync} of {new.leader}"
    if old is None:
        return
    if (new.term != old.term) != (new.leader != old.leader) or new.term - old.term not in (0, 1):
        yield f"term {old.term} of {old.leader} became {new.term} of {new.leader}"
    if new.system_identifier != old.system_identifier:
        yield "the system identifier changed"
    if new.sync != old.sync and new.leader == old.leader and fact.node != old.leader:
        yield f"{fact.node} changed the sync set of {old.leader}"
