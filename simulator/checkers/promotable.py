"""I5: nobody outside the sync set is ever promoted by the machine."""

from collections.abc import Iterator

from flightmode.model.cluster import ClusterState
from flightmode.model.policy import Policy
from simulator.checkers.judging import FORCED, Violation
from simulator.history import BecamePrimary, CopyBegan, History, StateChanged

# So long after a change of the sync set a node that runs knows of it.
_KNOWN_S = 1.0


def only_the_promotable_lead(history: History, policy: Policy) -> Iterator[Violation]:
    """I5: a new leader was in the sync set, unless a person forced it or it gets the term back."""
    served: set[int] = set()
    for fact in history.facts:
        match fact:
            case BecamePrimary(state=ClusterState(term=term)):
                served.add(term)
            case StateChanged(old=ClusterState() as old, new=ClusterState() as new):
                if old.leader == new.leader or FORCED in new.reason:
                    continue
                handed_back = new.leader == old.previous and old.term not in served
                if new.leader not in old.sync and not handed_back:
                    what = f"{new.leader} leads term {new.term}; promotable was {old.sync}"
                    yield Violation(fact.at_s, "I5", what)
                if fact.busy is not None:
                    what = f"{new.leader} leads term {new.term}; its data: {fact.busy}"
                    yield Violation(fact.at_s, "I5", what)
            case CopyBegan(state=ClusterState() as state) if fact.node in state.sync:
                # A swap that was under way for long may say so at any moment.
                if fact.at_s - fact.since_s > _KNOWN_S:
                    what = f"a {fact.how} of {fact.node} begins while it is counted on"
                    yield Violation(fact.at_s, "I5", what)
            case _:
                pass
