"""S10: a guard against loops of crashes, and no cure that is worse than the illness."""

from collections.abc import Iterator

from flightmode.model.cluster import ClusterState
from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation
from simulator.checkers.solitude import Solitude
from simulator.history import History, Killed, StateChanged

# So long after its leader has learned that it is alone, it knows better.
_KNOWN_S = 1.0
_DIED = "died"


def crashes_do_not_go_round(history: History, policy: Policy) -> Iterator[Violation]:
    """S10: after some failovers by a crash the next one is answered by a restart in place."""
    times: list[float] = []
    for fact in history.of(StateChanged):
        old, new = fact.old, fact.new
        offered = old is not None and new is not None and new.handover and not old.handover
        if not offered or not fact.able:
            continue
        # A restart in place that failed is no loop: there was one, and it is over.
        if new is not None and new.handover is not None and _DIED not in new.handover.why:
            continue
        times = [at_s for at_s in times if fact.at_s - at_s < policy.crash_window_s]
        if len(times) >= policy.crashes_max:
            what = f"{fact.node} hands over for the {len(times) + 1}th time by a crash"
            yield Violation(fact.at_s, "S10", what)
        times.append(fact.at_s)


def no_primary_is_killed_in_vain(history: History, policy: Policy) -> Iterator[Violation]:
    """S10: one that hangs is ended only where another one could serve."""
    alone = Solitude()
    for fact in history.facts:
        alone.heard(fact)
        match fact:
            case Killed(state=ClusterState(leader=leader)) if leader == fact.node:
                since_s = alone.since_s(fact.node)
                if since_s is not None and fact.at_s - since_s > _KNOWN_S:
                    what = f"{fact.node} ended its own primary, and nobody else could be promoted"
                    yield Violation(fact.at_s, "S10", what)
            case _:
                pass
