"""S6: who has promised not to claim does not claim."""

from collections.abc import Iterator

from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation
from simulator.history import History, Promised, StateChanged


def a_promise_is_kept(history: History, policy: Policy) -> Iterator[Violation]:
    """S6: no claim is carried out while the claimant's promise to that leader stands.

    A leader that hands over has stopped by itself.
    """
    promises: list[Promised] = []
    for fact in history.facts:
        match fact:
            case Promised():
                promises.append(fact)
            case StateChanged(old=old, new=new) if old is not None and new is not None:
                if new.leader != fact.node or new.leader == old.leader or old.handover is not None:
                    continue
                for each in promises:
                    concerns = (each.node, each.to, each.term) == (fact.node, old.leader, old.term)
                    if concerns and each.until_s > fact.at_s:
                        what = f"{fact.node} claimed {each.until_s - fact.at_s:.2f} s before it may"
                        yield Violation(fact.at_s, "S6", what)
                        break
            case _:
                pass
