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
        solo_leader(probe=HUNG),
    ],
    ids=["short", "off", "pause", "silent", "full", "starts", "stops", "solo"],
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


LOOPING = replace(SYNC, crashes_wall_s=(WALL_S - 9, WALL_S - 5))


def test_after_some_crashes_a_hung_primary_is_restarted_in_place() -> None:
    looping = store(LOOPING)
    assert verbs(decide(leader(probe=HUNG, store=looping))) == ["KillRemnants"]
    killed = leader(server=CRASHED, fence=IDLE, memory=memory(crashed=True), store=looping)
    assert verbs(decide(killed)) == ["StartPostgres"]


def test_a_probe_of_the_postgres_before_does_not_end_the_new_one() -> None:
    just_up = memory(primary_since_s=NOW_S - 0.1, admit_from=PRIMARY.position)
    assert "KillRemnants" not in verbs(decide(leader(probe=HUNG, memory=just_up)))
    first_look = memory(primary_since_s=None)
    assert "KillRemnants" not in verbs(decide(leader(probe=HUNG, memory=first_look)))


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


def test_nor_does_it_after_some_crashes_when_no_restart_in_place_is_possible() -> None:
    stuck = dying(NOW_S - 1.0, store=store(LOOPING))
    assert verbs(decide(stuck)) == ["KillRemnants", "hand over"]
    assert verbs(decide(dying(NOW_S - 0.9, store=store(LOOPING)))) == ["KillRemnants"]


def test_an_offer_is_made_once_and_to_somebody() -> None:
    offered = store(replace(SYNC, handover=Handover("fra", "died")))
    assert verbs(decide(dying(NOW_S - 3.0, store=offered))) == ["KillRemnants"]
    nobody = store(members=(seen(member(WIT, ABSENT)),))
    assert verbs(decide(dying(NOW_S - 3.0, store=nobody))) == ["KillRemnants"]
