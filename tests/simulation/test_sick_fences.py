"""A fence that does not answer."""

from simulator import cases
from simulator.history import StateChanged
from simulator.run import run


def test_a_leader_alone_whose_fence_hangs_goes_on_to_renew_while_its_standby_returns() -> None:
    """It decided to add the standby, broke its own rule by that, and did nothing at all (FM698)."""
    plan = cases.load(cases.KEPT / "a-standby-returns-while-the-fence-hangs.json")
    history = run(plan).history
    (hangs,) = (fault for fault in plan.faults if fault.kind == "hang fence")
    assert not [what for _, _, what in history.story if "FM698" in what]
    swaps = [f.at_s for f in history.of(StateChanged) if f.node == "ams"]
    during = [at_s for at_s in swaps if hangs.at_s < at_s < hangs.at_s + hangs.lasts_s]
    # Each look at the hung fence takes a second.
    assert len(during) > hangs.lasts_s / 3
