"""An agent that is told to end leaves the next one as long as there is, whenever it is told."""

import pytest

from simulator.fault import Fault
from simulator.history import PermissionEnded
from tests.simulation.stories import AT_S, gap_s, leaders, play

# The fence's deadline is 4.5 s after a renewal was sent, and one is sent each second.
AWAY_S = 4.0
AFTER_A_RENEWAL_S = (0.0, 0.2, 0.4, 0.6, 0.8)


def fenced(kind: str, at_s: float) -> bool:
    result = play(Fault(at_s, kind, "ams", AWAY_S))
    ended = [fact for fact in result.history.of(PermissionEnded) if fact.primary]
    assert bool(ended) is (leaders(result) != ["ams"] or gap_s(result, at_s) > 0.5)
    return bool(ended)


@pytest.mark.parametrize("late_s", AFTER_A_RENEWAL_S)
def test_the_next_agent_finds_a_permission_that_holds(late_s: float) -> None:
    assert not fenced("end agent", AT_S + late_s)


def test_one_that_is_killed_leaves_what_is_left_of_it() -> None:
    assert any(fenced("kill agent", AT_S + late_s) for late_s in AFTER_A_RENEWAL_S)
