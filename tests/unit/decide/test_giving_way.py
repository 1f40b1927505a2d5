"""The escape hatch when the leader's agent lives and its Postgres cannot (M1 of the review)."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.model.cluster import Pause, RequestKind
from flightmode.model.server import Run, Server
from flightmode.model.view import Job, JobKind, Renewed
from tests.unit.decide.worlds import (
    ABSENT,
    ALL_WELL,
    CRASHED,
    IDLE,
    NOW_S,
    SOLO,
    WALL_S,
    leader,
    memory,
    request,
    result,
    solo_leader,
    store,
    verbs,
)

DYING = Server(Run.DYING)
OVERDUE = Renewed(3, NOW_S - 1.4, solo=True)


def asked_for(node: str = "fra", **changes: object):
    """A leader that is due to renew, while a person asks for another one."""
    wish = request(RequestKind.FAILOVER, node, **changes)
    return {"store": store(SOLO, requests=(wish,)), "renewed": OVERDUE, "fence": IDLE}


def paused_store():
    paused = replace(SOLO, pause=Pause(WALL_S + 60, "somebody"))
    return store(paused, requests=(request(RequestKind.FAILOVER, "fra"),))


def test_a_leader_that_cannot_serve_gives_way_to_a_persons_word():
    decision = decide(solo_leader(server=ABSENT, **asked_for()))
    assert decision.rule == "leading: give way"
    assert verbs(decision) == []


@pytest.mark.parametrize(
    "results",
    [(result(JobKind.START, error="FM201: no", ago_s=99.0),), (result(JobKind.START, ago_s=99.0),)],
    ids=["refused", "ended before it came up"],
)
def test_one_that_failed_to_start_in_this_term_does_not_try_again_meanwhile(results):
    tried = memory(starting_since_s=NOW_S - 100)
    decision = decide(solo_leader(server=CRASHED, results=results, memory=tried, **asked_for()))
    assert verbs(decision) == []


def test_one_that_could_start_starts_and_loses_nothing():
    assert "StartPostgres" in verbs(decide(solo_leader(server=CRASHED, **asked_for())))


@pytest.mark.parametrize(("fenced", "lies_down"), [(False, True), (True, False)])
def test_in_a_pause_only_what_the_fence_ended_starts_again(fenced, lies_down):
    asked = asked_for() | {"store": paused_store()}
    view = solo_leader(server=CRASHED, memory=memory(fenced=fenced), **asked)
    assert (decide(view).rule == "leading: give way") is lies_down


def test_not_while_a_start_is_under_way():
    job = Job(JobKind.START, 3, NOW_S - 1)
    failed = (result(JobKind.START, error="FM201: no"),)
    view = solo_leader(server=CRASHED, job=job, results=failed, **asked_for())
    assert "renew" in verbs(decide(view))


@pytest.mark.parametrize("server", [Server(Run.STARTING), Server(Run.SILENT)])
def test_not_while_postgres_may_still_serve(server):
    assert "renew" in verbs(decide(solo_leader(server=server, **asked_for())))


@pytest.mark.parametrize(("ago_s", "silent"), [(0.2, False), (1.2, True)])
def test_what_is_left_of_postgres_is_ended_before_and_meanwhile(ago_s, silent):
    left = memory(dying_since_s=NOW_S - ago_s)
    decision = decide(solo_leader(server=DYING, memory=left, **asked_for()))
    assert "KillRemnants" in verbs(decision)
    assert ("renew" not in verbs(decision)) is silent


def test_paused_it_would_not_start_either():
    paused = replace(SOLO, pause=Pause(WALL_S + 99, "ada"))
    wish = request(RequestKind.FAILOVER, "fra")
    view = solo_leader(server=CRASHED, store=store(paused, requests=(wish,)), fence=IDLE)
    assert verbs(decide(view)) == []


def test_not_for_ever():
    over = decide(solo_leader(server=ABSENT, **asked_for(expires_wall_s=WALL_S - 1)))
    assert verbs(over)[0] == "renew"
    assert "FinishRequest" in verbs(over)


def test_after_that_nothing_is_started_before_a_renewal_is_confirmed():
    """Its target may be about to claim: one of the two swaps wins, and then Postgres starts."""
    view = solo_leader(server=CRASHED, fence=IDLE, store=store(SOLO), renewed=Renewed(3, 0.0, True))
    assert verbs(decide(view))[:1] == ["renew"]


@pytest.mark.parametrize("node", ["ams", "wit", "ber"])
def test_only_for_another_database_node(node):
    assert "renew" in verbs(decide(solo_leader(server=ABSENT, **asked_for(node))))


def test_who_holds_everything_gets_a_handover_instead():
    wish = request(RequestKind.FAILOVER, "fra")
    whole = store(requests=(wish,), members=ALL_WELL)
    assert "hand over" in verbs(decide(leader(server=ABSENT, store=whole, fence=IDLE)))
