"""What a checker is, and what it finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flightmode.model.cluster import ClusterState
from flightmode.model.policy import Policy
from simulator.history import History, StateChanged

FORCED = "accepted a loss of data"
"""In the reason of a term that a person forced."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise was broken."""

    at_s: float
    invariant: str
    what: str


Checker = Callable[[History, Policy], Iterator[Violation]]


def changes_of_leader(history: History) -> Iterator[tuple[StateChanged, ClusterState]]:
    for fact in history.of(StateChanged):
        old, new = fact.old, fact.new
        if new is not None and (old is None or (old.leader, old.term) != (new.leader, new.term)):
            yield fact, new
