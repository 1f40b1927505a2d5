"""S10: after some crashes a hung primary is ended and started in place, once."""

from simulator.fault import Fault
from simulator.history import BecamePrimary
from tests.simulation.test_scenarios import AT_S, leaders, play


def test_a_postmaster_that_hangs_after_two_crashes_is_restarted_in_place() -> None:
    hangs_s = AT_S + 30.0
    result = play(
        Fault(AT_S, "kill postgres", "leader"),
        Fault(AT_S + 12.0, "kill postgres", "leader"),
        Fault(hangs_s, "hang postmaster", "leader", 40.0),
        lasts_s=hangs_s + 20.0,
    )
    assert leaders(result) == ["ams", "fra", "ams"]
    (again,) = [each for each in result.history.of(BecamePrimary) if each.at_s > hangs_s]
    assert again.node == "ams"
    assert again.at_s - hangs_s < 8.0
