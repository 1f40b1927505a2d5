"""etcd that came from a backup: nobody goes by a term that is over (I1, I2, I10)."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.model.action import SwapState
from flightmode.model.cluster import RequestKind
from flightmode.model.lsn import Lsn
from flightmode.model.server import FenceView, Role
from flightmode.model.timeline import History
from tests.unit.decide.worlds import (
    ABSENT,
    ALL_WELL,
    AMS,
    CRASHED,
    DETACHED,
    FRA,
    IDLE,
    LIFTED,
    NOW_S,
    ON_3,
    PRIMARY,
    SOLO,
    STANDBY,
    STOPPED,
    WIT,
    done,
    follower,
    leader,
    member,
    memory,
    request,
    seen,
    silent_leader,
    solo_leader,
    store,
    verbs,
    view,
)

SERVED_5 = FenceView(True, True, False, Role.PRIMARY, 5, None, lifted=True)
ON_4 = History(4, (*ON_3.ancestors,))


def beside(**changes: object) -> tuple[object, ...]:
    """ams and wit are well, and fra says of itself what differs."""
    fra = member(FRA, STANDBY, **changes)
    return (ALL_WELL[0], seen(fra), ALL_WELL[2])


class TestItsOwnFenceKnowsBetter:
    @pytest.mark.parametrize("make", [leader, solo_leader, follower, silent_leader])
    @pytest.mark.parametrize("server", [PRIMARY, STANDBY, DETACHED, CRASHED, STOPPED, ABSENT])
    def test_it_neither_stops_nor_starts_anything(self, make, server):
        decision = decide(make(server=server, fence=SERVED_5))
        assert verbs(decision) == []
        assert str(decision.problem).startswith("FM632: ")

    def test_also_when_a_person_asks_for_it(self):
        asked = store(SOLO, requests=(request(RequestKind.FAILOVER, "fra"),), state_changed_s=0.0)
        assert verbs(decide(follower(fence=SERVED_5, store=asked))) == []

    def test_it_says_which_term_its_fence_has_served(self):
        decision = decide(follower(fence=SERVED_5, memory=memory(published_s=0.0)))
        assert decision.memory.published is not None
        assert decision.memory.published.fence_term == 5

    def test_a_fence_that_does_not_answer_says_nothing(self):
        decision = decide(follower(fence=FenceView(False)))
        assert decision.rule == "following: stream"


class TestAnotherNodeKnowsBetter:
    """The host of this one was rebooted, and its fence remembers nothing."""

    @pytest.mark.parametrize("server", [CRASHED, STOPPED])
    def test_a_leader_does_not_start(self, server):
        older = store(SOLO, members=beside(fence_term=4))
        decision = decide(solo_leader(server=server, fence=replace(IDLE, term=0), store=older))
        assert verbs(decision) == []
        assert "the fence of fra has served term 4" in str(decision.problem)

    def test_a_leader_does_not_promote(self):
        older = store(SOLO, members=beside(fence_term=4))
        decision = decide(solo_leader(server=DETACHED, fence=IDLE, store=older))
        assert verbs(decision) == []

    def test_a_primary_of_a_later_timeline_that_is_down_too_is_enough(self):
        later = beside(run=STOPPED.run, history=ON_4)
        crashed = replace(CRASHED, history=ON_3)
        decision = decide(solo_leader(server=crashed, fence=IDLE, store=store(SOLO, members=later)))
        assert "StartPostgres" not in verbs(decision)

    def test_whom_a_person_passed_over_does_not_count(self):
        later = beside(run=STOPPED.run, history=ON_4)
        forced = replace(SOLO, passed_over=("fra",))
        crashed = replace(CRASHED, history=ON_3)
        asked = solo_leader(server=crashed, fence=IDLE, store=store(forced, members=later))
        assert "StartPostgres" in verbs(decide(asked))

    def test_a_standby_does_not_claim(self):
        older = store(members=(seen(member(WIT, ABSENT, fence_term=4)),), state_changed_s=0.0)
        assert "claim" not in verbs(decide(follower(server=DETACHED, store=older)))

    def test_a_leader_whose_agent_was_just_started_hears_the_other_first(self):
        old = (ALL_WELL[0], seen(member(FRA, STANDBY), ago_s=1e9), ALL_WELL[2])
        for ago_s, starts in ((0.1, False), (2.9, False), (3.1, True)):
            just = store(SOLO, members=old, first_read_s=NOW_S - ago_s)
            decision = decide(solo_leader(server=CRASHED, fence=IDLE, store=just))
            assert ("StartPostgres" in verbs(decision)) is starts
        known = store(SOLO, members=old, first_read_s=NOW_S - 0.1, saw_term_begin=True)
        decision = decide(solo_leader(server=CRASHED, fence=IDLE, store=known))
        assert "StartPostgres" in verbs(decision)

    def test_a_new_cluster_begins_after_all_terms_that_a_fence_has_served(self):
        empty = (seen(member(FRA, ABSENT, fence_term=9)), seen(member(WIT, ABSENT)))
        new = view(AMS, server=STOPPED, fence=LIFTED, store=store(None, members=empty))
        (swap,) = done(decide(new), SwapState)
        assert isinstance(swap, SwapState)
        assert swap.state.term == 10


def test_a_position_beyond_the_leaders_on_its_own_timeline_is_an_ordinary_crash():
    ahead = beside(run=STOPPED.run, position=Lsn(0x6000000))
    crashed = solo_leader(server=CRASHED, fence=IDLE, store=store(SOLO, members=ahead))
    assert "StartPostgres" in verbs(decide(crashed))
