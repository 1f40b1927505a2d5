"""Stories with a name: what happens to one cluster, and how to ask what came of it.

ams leads from the beginning, fra is its standby and in the sync set after a few seconds.
"""

from itertools import pairwise

from flightmode.model.cluster import ClusterState
from simulator.fault import Fault
from simulator.history import Acknowledged, PermissionEnded, StateChanged
from simulator.run import Plan, Result, run
from simulator.weather import Weather, fair

AT_S = 20.0


def play(
    *faults: Fault, lasts_s: float = 50.0, weather: Weather | None = None, fast: bool = True
) -> Result:
    """The cluster comes up, the faults happen, nothing that was promised is broken."""
    result = run(Plan(7, weather or fair(), faults, lasts_s, fast=fast))
    assert result.violations == [], story(result)
    return result


def story(result: Result) -> str:
    lines = [f"{at_s:8.3f} {who:6} {what}" for at_s, who, what in result.history.story]
    return "\n".join([*map(str, result.violations), *lines])


def states(result: Result) -> list[tuple[float, ClusterState]]:
    """Each state that says something new, and since when."""
    found: list[tuple[float, ClusterState]] = []
    for fact in result.history.of(StateChanged):
        assert fact.new is not None
        if not found or _meaning(found[-1][1]) != _meaning(fact.new):
            found.append((fact.at_s, fact.new))
    return found


def _meaning(state: ClusterState) -> tuple[object, ...]:
    return state.term, state.leader, state.mode, state.handover, state.pause


def leaders(result: Result) -> list[str]:
    terms = {state.term: state.leader for _, state in states(result)}
    return [terms[term] for term in sorted(terms)]


def began_s(result: Result, term: int) -> float:
    return next(at_s for at_s, state in states(result) if state.term == term)


def gap_s(result: Result, after_s: float) -> float:
    """The longest time without an acknowledged row, of those that begin after that moment."""
    times = [fact.at_s for fact in result.history.of(Acknowledged) if fact.at_s > after_s - 0.5]
    return max(late - early for early, late in pairwise(times))


def rules(result: Result, node: str) -> list[str]:
    return [what.partition(" ->")[0] for _, who, what in result.history.story if who == node]


def fenced(result: Result) -> list[PermissionEnded]:
    """Where the end of a permission stopped a primary."""
    return [each for each in result.history.of(PermissionEnded) if each.primary]
