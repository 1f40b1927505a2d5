"""I7: a primary that its fence ended in a pause starts again; one that somebody ended does not."""

from dataclasses import replace

from flightmode.decide import decide
from flightmode.decide.remember import refresh
from flightmode.model.action import StartPostgres
from flightmode.model.cluster import Handover, Pause
from flightmode.model.server import FenceView, Role, Run, Server
from flightmode.model.view import Job, JobKind, View
from tests.unit.decide.worlds import (
    CRASHED,
    IDLE,
    NOW_S,
    SYNC,
    WALL_S,
    done,
    leader,
    memory,
    store,
    verbs,
)

PAUSED = store(replace(SYNC, pause=Pause(WALL_S + 600, "ada")))
EXPIRED = FenceView(True, term=3, expired=True)
DYING = Server(Run.DYING, data=CRASHED.data)


def dead(**changes: object) -> View:
    """ams leads, its Postgres is down, the cluster is paused."""
    base = {"server": CRASHED, "fence": EXPIRED, "store": PAUSED}
    return leader(**{**base, **changes})


def test_what_its_fence_ended_starts_again_in_place() -> None:
    decision = decide(dead(memory=memory(crashed=True, fenced=True)))
    (start,) = done(decision, StartPostgres)
    assert isinstance(start, StartPostgres)
    assert (start.role, start.term, start.deadline_s) == (Role.PRIMARY, 3, NOW_S + 600)


def test_what_somebody_ended_stays_down_also_when_the_permission_ends_later() -> None:
    assert "StartPostgres" not in verbs(decide(dead(memory=memory(crashed=True))))


def test_an_offered_handover_stands_in_a_pause_too() -> None:
    state = replace(SYNC, pause=Pause(WALL_S + 600, "ada"), handover=Handover("fra", "died"))
    offered = dead(memory=memory(crashed=True, fenced=True), store=store(state))
    assert "StartPostgres" not in verbs(decide(offered))


def test_a_job_is_waited_for() -> None:
    job = Job(JobKind.PREPARE, 3, NOW_S)
    assert decide(dead(memory=memory(crashed=True, fenced=True), job=job)).rule == "leading: job"


def test_it_is_the_moment_of_its_death_that_counts() -> None:
    served = memory(primary_since_s=NOW_S - 60)
    for run in (CRASHED, DYING):
        seen = refresh(dead(server=run, memory=served))
        assert seen.memory.fenced
        later = refresh(replace(seen, fence=IDLE))
        assert later.memory.fenced
    killed = refresh(dead(fence=IDLE, memory=served))
    assert not killed.memory.fenced
    assert not refresh(replace(killed, fence=EXPIRED)).memory.fenced
    assert not refresh(leader(memory=memory(fenced=True))).memory.fenced
