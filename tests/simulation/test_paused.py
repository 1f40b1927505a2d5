"""I7: in a pause roles stay as they are, and who serves goes on serving."""

from simulator.fault import Fault
from simulator.history import BecamePrimary, PermissionEnded
from tests.simulation.test_scenarios import AT_S, leaders, play

PAUSED = Fault(AT_S, "ask", "", other="pause", amount=60.0)


def test_a_clock_that_is_set_in_a_pause_costs_a_restart_and_not_the_pause() -> None:
    """The fence can't tell a step of the clock from a machine that stood still."""
    result = play(PAUSED, Fault(AT_S + 5.0, "jump", "ams", 0.0, amount=0.8))
    ends = [each for each in result.history.of(PermissionEnded) if each.primary]
    # It is set back when everything is healed.
    assert [each.why for each in ends] == ["clock jump", "clock jump"]
    for ended in ends:
        again = [each for each in result.history.of(BecamePrimary) if each.at_s > ended.at_s]
        assert again[0].node == "ams"
        assert again[0].at_s - ended.at_s < 10.0
    assert leaders(result) == ["ams"]


def test_what_was_ended_in_a_pause_by_others_stays_down_although_a_clock_is_set() -> None:
    """Somebody works on it, and paused the cluster for that."""
    result = play(
        PAUSED,
        Fault(AT_S + 3.0, "kill postgres", "ams"),
        Fault(AT_S + 8.0, "jump", "ams", 0.0, amount=0.8),
    )
    again = [each for each in result.history.of(BecamePrimary) if each.at_s > AT_S]
    assert all(each.at_s > AT_S + 50.0 for each in again)
