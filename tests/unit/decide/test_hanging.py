"""S10: a primary that hangs is ended where somebody else could serve, and nowhere else."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.model.action import SwapState
from flightmode.model.cluster import Handover, Pause
from flightmode.model.server import Probe, Run, Server
from flightmode.model.view import Job, JobKind, View
from tests.unit.decide.worlds import (
    ABSENT,
    CRASHED,
    FRA,
    IDLE,
    NOW_S,
    POLICY,
    PRIMARY,
    STANDBY,
    SYNC,
    WALL_S,
    WIT,
    leader,
    member,
    memory,
    seen,
    solo_leader,
    store,
    verbs,
)

HUNG = Probe(NOW_S - 4.0, "no new connection")
DYING = Server(Run.DYING, data=PRIMARY.data)


def test_a_primary_that_hangs_is_killed_for_its_successor() -> None:
    assert verbs(decide(leader(probe=HUNG))) == ["KillRemnants"]
    assert verbs(decide(leader(probe=HUNG, server=replace(PRIMARY, run=Run.SILENT)))) == [
        "KillRemnants"
    ]


@pytest.mark.parametrize(
    "view",
    [
        leader(probe=replace(HUNG, failing_since_s=NOW_S - 3.9)),
        leader(probe=HUNG, policy=replace(POLICY, hang_after_s=0.0)),
        leader(probe=HUNG, store=store(replace(SYNC, pause=Pause(WALL_S + 60, "ada")))),
        leader(probe=HUNG, store=store(members=(seen(member(FRA, STANDBY), ago_s=4.0),))),
        leader(probe=HUNG, store=store(members=(seen(member(FRA, STANDBY, disk_free=0.0)),))),
        leader(probe=HUNG, job=Job(JobKind.START, 3, NOW_S)),
        leader(probe=HUNG, job=Job(JobKind.STOP, 3, NOW_S)),
        leader(
            probe=HUNG,
            store=store(replace(SYNC, crashes_wall_s=(WALL_S - 9, WALL_S - 5))),
        ),
        solo_leader(probe=HUNG),
    ],
    ids=["short", "off", "pause", "silent", "full", "starts", "stops", "loop", "solo"],
)
def test_a_primary_that_hangs_is_left_alone_when_that_helps_nobody(view: View) -> None:
    assert "KillRemnants" not in verbs(decide(view))


NEEDS_POSTGRES = [JobKind.CHECKPOINT, JobKind.PREPARE, JobKind.SYNC_NAMES]


@pytest.mark.parametrize("kind", NEEDS_POSTGRES)
def test_a_job_that_hangs_with_its_postgres_does_not_keep_it_alive(kind: str) -> None:
    job = Job(kind, 3, NOW_S - 9)
    assert verbs(decide(leader(probe=HUNG, job=job))) == ["KillRemnants"]
    dead = leader(server=CRASHED, fence=IDLE, job=job, memory=memory(crashed=True))
    assert verbs(decide(dead)) == ["hand over"]


@pytest.mark.parametrize("kind", NEEDS_POSTGRES)
def test_without_a_successor_it_is_waited_for_before_a_start(kind: str) -> None:
    """At most one job runs at a time, and this one is about to hear that its server is gone."""
    alone = store(members=(seen(member(WIT, ABSENT)),))
    crashed = memory(crashed=True)
    dead = leader(server=CRASHED, fence=IDLE, job=Job(kind, 3, NOW_S), memory=crashed, store=alone)
    assert decide(dead).rule == "leading: job"


def dying(since_s: float, **changes: object) -> View:
    steady = memory(primary_since_s=None, crashed=True, dying_since_s=since_s)
    return leader(**{"server": DYING, "memory": steady, **changes})


def test_what_waits_for_a_stalled_disk_does_not_hold_up_the_successor() -> None:
    assert verbs(decide(dying(NOW_S - 0.9))) == ["KillRemnants"]
    decision = decide(dying(NOW_S - 1.0))
    assert verbs(decision) == ["KillRemnants", "hand over"]
    (offer,) = (each for each in decision.actions if isinstance(each, SwapState))
    assert offer.state.handover is not None
    assert offer.state.handover.to == "fra"


def test_an_offer_is_made_once_and_to_somebody() -> None:
    offered = store(replace(SYNC, handover=Handover("fra", "died")))
    assert verbs(decide(dying(NOW_S - 3.0, store=offered))) == ["KillRemnants"]
    nobody = store(members=(seen(member(WIT, ABSENT)),))
    assert verbs(decide(dying(NOW_S - 3.0, store=nobody))) == ["KillRemnants"]
