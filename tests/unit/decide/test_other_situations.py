"""Bootstrap, isolation, witness, publishing, pauses, and the net of invariants."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.decide.invariants import check
from flightmode.model.action import (
    LiftFence,
    Promote,
    Publish,
    SetSyncNames,
    SwapState,
)
from flightmode.model.cluster import Mode, Pause, RequestKind
from flightmode.model.decision import Decision
from flightmode.model.server import Run, Server
from tests.unit.decide.worlds import (
    ABSENT,
    ALL_WELL,
    FRA,
    IDLE,
    LIFTED,
    NOW_S,
    PRIMARY,
    SOLO,
    STANDBY,
    STOPPED,
    SYNC,
    WALL_S,
    WIT,
    done,
    follower,
    leader,
    member,
    memory,
    request,
    seen,
    solo_leader,
    store,
    verbs,
    view,
)

EMPTY_FRA = seen(member(FRA, ABSENT))
EMPTY_WIT = seen(member(WIT, ABSENT))
NEW = {"fence": IDLE, "renewed": None, "memory": memory(term=0, watched=())}


class TestBootstrap:
    nothing = store(None, members=(EMPTY_FRA, EMPTY_WIT))

    def test_the_chosen_node_makes_a_database(self):
        assert verbs(decide(view(server=ABSENT, store=self.nothing, **NEW))) == ["Initdb"]

    def test_and_records_itself_as_the_first_leader(self):
        decision = decide(view(server=STOPPED, store=self.nothing, **NEW))
        (swap,) = done(decision, SwapState)
        assert isinstance(swap, SwapState)
        assert swap.expected_revision == 0
        assert swap.state.leader == "ams"
        assert swap.state.mode is Mode.SOLO

    def test_the_first_term_is_newer_than_any_that_somebody_remembers(self):
        old = seen(member(FRA, ABSENT, term=17))
        remembered = store(None, members=(old, EMPTY_WIT))
        (swap,) = done(decide(view(server=STOPPED, store=remembered, **NEW)), SwapState)
        assert isinstance(swap, SwapState)
        assert swap.state.term == 18

    def test_the_others_wait(self):
        decision = decide(view(FRA, server=ABSENT, store=self.nothing, **NEW))
        assert verbs(decision) == []

    def test_not_before_every_database_node_has_been_heard(self):
        alone = store(None, members=(EMPTY_WIT,))
        assert verbs(decide(view(server=ABSENT, store=alone, **NEW))) == []

    @pytest.mark.parametrize("server", [ABSENT, STOPPED])
    def test_an_emptied_store_never_makes_a_second_truth(self, server):
        holder = store(None, members=(seen(member(FRA, STANDBY)), EMPTY_WIT))
        decision = decide(view(server=server, store=holder, **NEW))
        assert verbs(decision) == []
        assert decision.problem is not None
        assert decision.problem.startswith("FM611")

    @pytest.mark.parametrize("run", [Run.STARTING, Run.SILENT, Run.DYING, Run.STOPPED])
    def test_who_does_not_know_yet_what_it_has_is_not_taken_for_empty(self, run):
        """Its first look at Postgres takes a while, or its control file can't be read."""
        slow = store(None, members=(seen(member(FRA, Server(run))), EMPTY_WIT))
        decision = decide(view(server=STOPPED, store=slow, **NEW))
        assert verbs(decision) == []
        assert str(decision.problem).startswith("FM611")

    def test_data_of_another_major_are_refused(self):
        assert STOPPED.data is not None
        other = replace(STOPPED, data=replace(STOPPED.data, pg_major=14))
        decision = decide(view(server=other, store=self.nothing, **NEW))
        assert verbs(decision) == []
        assert decision.problem is not None


class TestIsolation:
    blind = store(reachable=False, read_s=NOW_S - 7)

    @pytest.mark.parametrize("make", [leader, solo_leader, follower])
    def test_a_silent_store_changes_nothing(self, make):
        decision = decide(make(store=self.blind))
        assert decision.actions == ()
        assert decision.rule == "isolation: wait"

    def test_it_says_how_long_postgres_may_go_on(self):
        assert "4.0 s more" in decide(leader(store=self.blind)).why
        assert "serves on" in decide(solo_leader(store=self.blind)).why

    def test_before_the_first_answer_it_says_so(self):
        never = store(None, reachable=False, read_s=-1.0)
        assert "since this agent started" in decide(follower(store=never)).why


def test_a_witness_only_publishes():
    decision = decide(view(WIT, server=ABSENT, fence=IDLE, renewed=None, memory=memory(0)))
    assert [type(action) for action in decision.actions] == [Publish]


class TestPublishing:
    def test_what_changed_is_published_at_once(self):
        published = memory(published=member(FRA, STANDBY, streaming=False))
        assert done(decide(follower(memory=published)), Publish)

    def test_what_did_not_is_published_every_second(self):
        first = decide(follower(memory=memory(published=None)))
        (action,) = done(first, Publish)
        assert isinstance(action, Publish)
        quiet = memory(watched=(), published=action.member, published_s=NOW_S - 0.9)
        assert not done(decide(follower(memory=quiet)), Publish)
        due = replace(quiet, published_s=NOW_S - 1.0)
        assert done(decide(follower(memory=due)), Publish)

    def test_a_lowered_synchronous_commit_is_warned_of(self):
        lowered = replace(PRIMARY, lowered_commit=("*/reports",))
        (action,) = done(decide(leader(server=lowered, memory=memory(published=None))), Publish)
        assert isinstance(action, Publish)
        assert any("reports" in warning for warning in action.member.warnings)

    def test_a_setting_that_safety_rests_on_is_warned_of(self):
        stray = replace(PRIMARY, stray_settings=("fsync = off",))
        (action,) = done(decide(leader(server=stray, memory=memory(published=None))), Publish)
        assert isinstance(action, Publish)
        assert any(warning.startswith("fsync = off") for warning in action.member.warnings)


class TestPausing:
    def test_a_pause_is_recorded_in_the_state(self):
        asked = request(RequestKind.PAUSE, until_wall_s=WALL_S + 600)
        (swap,) = done(decide(leader(store=store(requests=(asked,)))), SwapState)
        assert isinstance(swap, SwapState)
        assert swap.state.pause == Pause(WALL_S + 600, "ada")

    def test_and_then_answered(self):
        asked = request(RequestKind.PAUSE, until_wall_s=WALL_S + 600)
        recorded = replace(SYNC, pause=Pause(WALL_S + 600, "ada"))
        decision = decide(leader(store=store(recorded, requests=(asked,))))
        assert "FinishRequest" in verbs(decision)

    def test_a_resume_ends_it(self):
        recorded = replace(SYNC, pause=Pause(WALL_S + 600, "ada"))
        asked = request(RequestKind.RESUME)
        (swap,) = done(decide(leader(store=store(recorded, requests=(asked,)))), SwapState)
        assert isinstance(swap, SwapState)
        assert swap.state.pause is None


class TestRefusals:
    def test_a_failover_is_refused_while_the_leader_serves(self):
        asked = request(RequestKind.FAILOVER, "fra")
        assert "FinishRequest" in verbs(decide(leader(store=store(requests=(asked,)))))

    def test_the_leader_is_never_cloned_over(self):
        asked = request(RequestKind.REINIT, "ams")
        decision = decide(leader(store=store(requests=(asked,))))
        assert "FinishRequest" in verbs(decision)
        assert "StopPostgres" not in verbs(decision)


class TestTheNet:
    """A second statement of the order in S2 and S3: it catches wrong decisions."""

    def wrong(self, moment, *actions):
        with pytest.raises(AssertionError):
            check(moment, Decision("x", "x", actions, moment.memory, 1.0))

    def test_a_deadline_lifted_in_sync(self):
        self.wrong(leader(), LiftFence(3))

    def test_names_cleared_before_it_is_recorded(self):
        self.wrong(leader(), SetSyncNames(3, ()))

    def test_names_cleared_ahead_of_the_record(self):
        alone = SwapState("degrade", 90, replace(SYNC, mode=Mode.SOLO, sync=(), renewal=41))
        self.wrong(leader(), LiftFence(3), alone)
        self.wrong(leader(), SetSyncNames(3, ()), alone)
        check(leader(), Decision("x", "x", (alone, LiftFence(3)), leader().memory, 1.0))

    def test_names_cleared_in_doubt(self):
        self.wrong(solo_leader(store=store(SOLO, in_doubt=90)), SetSyncNames(3, ()))

    def test_a_standby_recorded_before_the_proof(self):
        moment = solo_leader(server=replace(PRIMARY, sync_since=None))
        added = replace(SOLO, mode=Mode.SYNC, sync=("fra",), renewal=41)
        self.wrong(moment, SwapState("add", 90, added))

    def test_a_standby_recorded_with_an_unarmed_fence(self):
        added = replace(SOLO, mode=Mode.SYNC, sync=("fra",), renewal=41)
        self.wrong(solo_leader(fence=LIFTED), SwapState("add", 90, added))

    def test_a_claim_while_attached(self):
        claimed = replace(SYNC, term=4, leader="fra", mode=Mode.SOLO, sync=(), renewal=41)
        self.wrong(follower(), SwapState("claim", 90, claimed))

    def test_a_term_that_skips(self):
        claimed = replace(SYNC, term=5, leader="fra", mode=Mode.SOLO, sync=(), renewal=41)
        moment = follower(server=replace(STANDBY, following=None, receiver=None))
        self.wrong(moment, SwapState("claim", 90, claimed))

    def test_a_renewal_by_somebody_else(self):
        self.wrong(follower(), SwapState("renew", 90, replace(SYNC, renewal=41)))

    def test_a_promotion_without_the_term(self):
        self.wrong(follower(), Promote(3))

    def test_two_swaps(self):
        once = SwapState("renew", 90, replace(SYNC, renewal=41))
        self.wrong(leader(), once, once)

    def test_a_swap_of_a_state_that_was_not_seen(self):
        self.wrong(leader(), SwapState("renew", 89, replace(SYNC, renewal=41)))


def test_all_is_well_in_the_world_of_these_tests():
    assert len(ALL_WELL) == 3
