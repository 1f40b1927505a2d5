"""etcd from a backup: what serves goes on to serve, until a person has brought the newest state."""

import pytest

from simulator import cases
from simulator.history import Acknowledged, PermissionEnded
from simulator.run import run

PLANS = ("etcd-from-a-backup", "etcd-from-a-backup-and-both-fences-know-better")


@pytest.mark.parametrize("name", PLANS)
def test_the_newer_primary_is_not_stopped_and_no_other_takes_writes(name: str) -> None:
    plan = cases.load(cases.KEPT / f"{name}.json")
    (restored,) = (fault for fault in plan.faults if fault.kind == "restore etcd")
    history = run(plan).history
    ended = [each for each in history.of(PermissionEnded) if each.at_s > restored.at_s]
    assert not [each for each in ended if each.primary]
    during = [
        each.node
        for each in history.of(Acknowledged)
        if restored.at_s < each.at_s < restored.at_s + restored.lasts_s
    ]
    assert set(during) == {"fra"}
