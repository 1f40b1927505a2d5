"""What a leader does in each state of its Postgres."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.model.action import ExtendFence, StartPostgres, StopPostgres, SwapState
from flightmode.model.cluster import Handover, Mode, Pause, RequestKind
from flightmode.model.lsn import Lsn
from flightmode.model.server import FenceView, Role, Run
from flightmode.model.view import Job, JobKind, Renewed
from tests.unit.decide.worlds import (
    ABSENT,
    ALL_WELL,
    ARMED,
    CRASHED,
    DETACHED,
    IDLE,
    LIFTED,
    NOW_S,
    PRIMARY,
    SOLO,
    STANDBY,
    STOPPED_STANDBY,
    STREAMING,
    SYNC,
    WALL_S,
    done,
    leader,
    memory,
    request,
    result,
    seen,
    solo_leader,
    store,
    verbs,
)

DEAD = memory(crashed=True, watched=())
assert CRASHED.data is not None
FOREIGN = replace(CRASHED.data, system_identifier="42")
FRESH = Renewed(3, NOW_S - 0.4, solo=False)
STALE = Renewed(3, NOW_S - 1.0, solo=False)


class TestRenewal:
    def test_a_leader_renews_every_second_and_changes_nothing_else(self):
        decision = decide(leader(renewed=STALE))
        (swap,) = done(decision, SwapState)
        assert isinstance(swap, SwapState)
        assert swap.purpose == "renew"
        assert swap.state == replace(SYNC, renewal=41)

    def test_what_is_left_of_a_longer_permission_is_recorded_with_the_first_renewal(self):
        before = leader(renewed=None, fence=replace(ARMED, deadline_s=NOW_S + 8))
        assert [each.state.ttl_s for each in done(decide(before), SwapState)] == [8.0]
        unknown = leader(
            renewed=None, fence=FenceView(False), store=store(replace(SYNC, ttl_s=9.0))
        )
        assert {each.state.ttl_s for each in done(decide(unknown), SwapState)} <= {9.0}

    def test_permission_counts_from_the_sending(self):
        decision = decide(leader(fence=replace(ARMED, deadline_s=NOW_S + 3)))
        (extend,) = done(decision, ExtendFence)
        assert extend == ExtendFence(3, NOW_S - 0.4 + 4.5)

    def test_a_new_agent_confirms_the_term_before_anything(self):
        decision = decide(leader(renewed=None))
        assert verbs(decision) == ["renew"]

    def test_in_doubt_it_only_settles(self):
        decision = decide(leader(store=store(in_doubt=90), server=replace(PRIMARY, replicas=())))
        assert verbs(decision) == ["renew"]

    def test_a_deadline_that_is_over_is_not_handed_out(self):
        late = Renewed(3, NOW_S - 4.6, solo=False)
        assert "ExtendFence" not in verbs(decide(leader(renewed=late)))

    def test_it_looks_again_when_the_next_renewal_is_due(self):
        assert decide(leader()).wake_s <= 0.6 + 1e-9


class TestAfterACrash:
    def test_the_promotable_standby_is_asked_to_take_over(self):
        decision = decide(leader(server=CRASHED, fence=IDLE, memory=DEAD))
        (swap,) = done(decision, SwapState)
        assert isinstance(swap, SwapState)
        assert swap.purpose == "hand over"
        assert swap.state.handover is not None
        assert swap.state.handover.to == "fra"
        assert swap.state.term == 3
        assert swap.state.crashes_wall_s == (WALL_S,)

    def test_dying_children_are_ended_first(self):
        decision = decide(leader(server=replace(CRASHED, run=Run.DYING), memory=DEAD))
        assert "KillRemnants" in verbs(decision)
        assert "hand over" not in verbs(decision)

    def test_without_a_fence_nothing_can_be_ended_or_started_so_it_hands_over(self):
        """A fence that stayed away kept its leader renewing a term without a Postgres."""
        gone = replace(IDLE, reachable=False)
        dead = leader(server=replace(CRASHED, run=Run.DYING), fence=gone, memory=DEAD)
        assert "hand over" in verbs(decide(dead))
        alone = replace(dead, store=store(SOLO))
        assert not {"hand over", "KillRemnants"} & set(verbs(decide(alone)))
        paused = replace(dead, store=store(replace(SYNC, pause=Pause(WALL_S + 30, "ada"))))
        assert "hand over" not in verbs(decide(paused))

    def test_nothing_starts_while_the_offer_stands(self):
        offered = store(replace(SYNC, handover=Handover("fra", "x")))
        waiting = replace(DEAD, offered_since_s=NOW_S - 1)
        decision = decide(leader(server=CRASHED, fence=IDLE, store=offered, memory=waiting))
        assert "StartPostgres" not in verbs(decision)
        assert "withdraw" not in verbs(decision)

    def test_an_offer_that_nobody_takes_is_withdrawn_before_the_start(self):
        offered = store(replace(SYNC, handover=Handover("fra", "x")))
        waited = replace(DEAD, offered_since_s=NOW_S - 2.1)
        decision = decide(leader(server=CRASHED, fence=IDLE, store=offered, memory=waited))
        assert verbs(decision) == ["withdraw"]
        assert not decision.memory.crashed

    def test_the_third_crash_within_the_window_is_restarted_in_place(self):
        looping = store(replace(SYNC, crashes_wall_s=(WALL_S - 500, WALL_S - 60)))
        decision = decide(leader(server=CRASHED, fence=IDLE, store=looping, memory=DEAD))
        assert "StartPostgres" in verbs(decision)
        long_ago = store(replace(SYNC, crashes_wall_s=(WALL_S - 900, WALL_S - 60)))
        decision = decide(leader(server=CRASHED, fence=IDLE, store=long_ago, memory=DEAD))
        assert "hand over" in verbs(decision)

    def test_a_standby_that_has_not_been_heard_of_is_not_asked(self):
        ams, fra, wit = ALL_WELL
        mute = store(members=(ams, seen(fra.member, ago_s=3.1), wit))
        decision = decide(leader(server=CRASHED, fence=IDLE, store=mute, memory=DEAD))
        assert "StartPostgres" in verbs(decision)

    def test_a_cold_start_is_in_place(self):
        decision = decide(leader(server=CRASHED, fence=IDLE, memory=memory(watched=())))
        (start,) = done(decision, StartPostgres)
        assert start == StartPostgres(Role.PRIMARY, 3, NOW_S - 0.4 + 4.5, None)

    def test_a_primary_is_not_started_on_a_permission_that_is_nearly_over(self):
        old = Renewed(3, NOW_S - 3.6, solo=False)
        decision = decide(leader(server=CRASHED, fence=IDLE, memory=memory(), renewed=old))
        assert verbs(decision) == ["renew"]

    def test_alone_it_starts_without_a_deadline(self):
        decision = decide(solo_leader(server=CRASHED, fence=IDLE, memory=DEAD))
        (start,) = done(decision, StartPostgres)
        assert isinstance(start, StartPostgres)
        assert start.deadline_s is None

    def test_a_server_that_is_being_stopped_is_not_slow_in_starting(self):
        """The ten seconds of a stop that hung were taken off the start that came after it."""
        refusing = replace(CRASHED, run=Run.STARTING)
        stopping = leader(server=refusing, job=Job(JobKind.STOP, 3, NOW_S - 8))
        assert decide(stopping).memory.starting_since_s is None
        starting = leader(server=refusing, job=Job(JobKind.START, 3, NOW_S - 8))
        assert decide(starting).memory.starting_since_s == NOW_S

    def test_recovery_that_takes_long_gives_way_to_a_standby_that_could_serve(self):
        slow = memory(starting_since_s=NOW_S - 11, watched=())
        decision = decide(leader(server=replace(CRASHED, run=Run.STARTING), memory=slow))
        (stop,) = done(decision, StopPostgres)
        assert isinstance(stop, StopPostgres)
        assert not stop.fast
        assert decision.memory.crashed


class TestUnusableData:
    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"system_identifier": "42"}, "FM606"),
            ({"pg_major": 14}, "FM607"),
            ({"unfinished": "rewind"}, "FM608"),
        ],
    )
    def test_it_is_left_alone_and_said_loudly(self, changes, code):
        assert CRASHED.data is not None
        server = replace(CRASHED, data=replace(CRASHED.data, **changes))
        decision = decide(solo_leader(server=server, fence=IDLE, memory=memory(watched=())))
        assert "StartPostgres" not in verbs(decision)
        assert decision.problem is not None
        assert decision.problem.startswith(code)

    def test_missing_data_is_a_person_s_matter(self):
        decision = decide(solo_leader(server=ABSENT, fence=IDLE))
        assert decision.problem is not None
        assert verbs(decision) == []

    @pytest.mark.parametrize(
        "server",
        [ABSENT, replace(CRASHED, data=None), replace(CRASHED, data=FOREIGN)],
        ids=["gone", "unreadable", "another cluster's"],
    )
    def test_who_holds_every_commit_gets_the_lead(self, server):
        """I9: a leader that only renews would keep the one who has the data from leading."""
        decision = decide(leader(server=server, fence=IDLE, memory=memory(watched=())))
        (swap,) = done(decision, SwapState)
        assert isinstance(swap, SwapState)
        assert swap.purpose == "hand over"
        assert swap.state.handover is not None
        assert swap.state.handover.to == "fra"

    def test_an_offer_of_one_without_data_is_waited_for_and_withdrawn(self):
        offered = store(replace(SYNC, handover=Handover("fra", "x")))
        waiting = memory(watched=(), offered_since_s=NOW_S - 1)
        absent = leader(server=ABSENT, fence=IDLE, store=offered, memory=waiting)
        assert verbs(decide(absent)) in ([], ["renew"])
        late = replace(absent, memory=replace(waiting, offered_since_s=NOW_S - 3))
        assert "withdraw" in verbs(decide(late))

    def test_while_paused_nobody_gets_the_lead(self):
        paused = store(replace(SYNC, pause=Pause(WALL_S + 600, "ada")))
        assert "hand over" not in verbs(decide(leader(server=ABSENT, fence=IDLE, store=paused)))


class TestCutOffPromotion:
    """The signal is gone, the end of recovery is not written: still a standby (S3.5)."""

    def test_it_starts_as_a_standby_and_is_promoted_again(self):
        assert CRASHED.data is not None
        data = replace(CRASHED.data, control_state="in archive recovery")
        decision = decide(
            solo_leader(server=replace(CRASHED, data=data), fence=IDLE, memory=memory(watched=()))
        )
        (start,) = done(decision, StartPostgres)
        assert isinstance(start, StartPostgres)
        assert start.role is Role.STANDBY

    def test_one_that_was_killed_in_crash_recovery_was_a_primary(self):
        assert CRASHED.data is not None
        data = replace(CRASHED.data, control_state="in crash recovery")
        assert data.was_primary


class TestTakingOver:
    def test_a_new_leader_lifts_the_fence_for_its_term_and_promotes(self):
        fresh = store(replace(SOLO, reason="ams died"))
        decision = decide(
            solo_leader(server=DETACHED, fence=IDLE, store=fresh, memory=memory(watched=()))
        )
        assert verbs(decision) == ["LiftFence", "Promote"]
        assert decision.memory.promoting_since_s == NOW_S

    def test_it_promotes_once_and_waits(self):
        waiting = memory(watched=(), promoting_since_s=NOW_S - 1)
        decision = decide(solo_leader(server=DETACHED, fence=LIFTED, memory=waiting))
        assert "Promote" not in verbs(decision)

    def test_what_the_old_primary_waited_for_is_cleared_first(self):
        server = replace(DETACHED, sync_names=("ams",))
        decision = decide(solo_leader(server=server, fence=IDLE, memory=memory(watched=())))
        assert verbs(decision) == ["SetSyncNames"]

    def test_a_promotion_that_hangs_is_given_up_when_the_old_leader_is_well(self):
        ams, fra, wit = ALL_WELL
        old = seen(replace(fra.member, run=Run.STANDBY))
        state = replace(SOLO, leader="ams", previous="fra")
        hung = memory(watched=(), promoting_since_s=NOW_S - 5.1)
        told = store(state, members=(ams, old, wit))
        decision = decide(solo_leader(server=DETACHED, store=told, fence=LIFTED, memory=hung))
        assert "StopPostgres" in verbs(decision)

    @pytest.mark.parametrize(
        ("replayed_since", "rule"),
        [(0, "leading: promote anew"), (8192, "leading: promote again")],
        ids=["stands still", "replays"],
    )
    def test_one_that_stands_still_is_begun_anew_when_nobody_else_could_lead(
        self, replayed_since, rule
    ):
        before = Lsn(DETACHED.replayed - replayed_since)
        hung = memory(
            watched=(),
            promoting_since_s=NOW_S - 6,
            promote_asked=True,
            standing_at=before,
            standing_since_s=NOW_S - 21,
        )
        told = store(replace(SOLO, previous=None))
        decision = decide(solo_leader(server=DETACHED, store=told, fence=LIFTED, memory=hung))
        assert decision.rule == rule

    def test_and_the_term_goes_back(self):
        hung = memory(watched=(), promoting_since_s=NOW_S - 6)
        state = replace(SOLO, previous="fra")
        decision = decide(
            solo_leader(server=STOPPED_STANDBY, store=store(state), fence=IDLE, memory=hung)
        )
        (swap,) = done(decision, SwapState)
        assert isinstance(swap, SwapState)
        assert swap.purpose == "hand back"
        assert (swap.state.leader, swap.state.term) == ("fra", 4)

    def test_but_not_when_it_was_promoted_after_all(self):
        hung = memory(watched=(), promoting_since_s=NOW_S - 6)
        state = replace(SOLO, previous="fra")
        decision = decide(solo_leader(server=CRASHED, store=store(state), fence=IDLE, memory=hung))
        assert "hand back" not in verbs(decision)


class TestAdmittingClients:
    """S8."""

    closed = replace(PRIMARY, admits_clients=False)
    back = memory(primary_since_s=NOW_S - 1, admit_from=Lsn(0x5000000))

    def test_they_wait_until_a_holder_has_what_recovery_brought_back(self):
        behind = replace(self.closed, replicas=(replace(STREAMING, flushed=Lsn(0x4FFFFFF)),))
        assert "Admit" not in verbs(decide(leader(server=behind, memory=self.back)))
        assert "Admit" in verbs(decide(leader(server=self.closed, memory=self.back)))

    def test_they_wait_while_commits_do_not(self):
        careless = replace(self.closed, sync_names=())
        assert "Admit" not in verbs(decide(leader(server=careless, memory=self.back)))

    def test_they_wait_until_commits_are_proven_to_wait_in_this_life_of_postgres(self):
        """The names are in the file at the start; the checkpointer takes them up later."""
        started = leader(server=replace(self.closed, sync_since=None), memory=self.back)
        assert "SetSyncNames" in verbs(decide(started))
        proving = replace(started, job=Job(JobKind.SYNC_NAMES, 3, NOW_S))
        assert "Admit" not in verbs(decide(proving))
        served = replace(started, server=replace(PRIMARY, sync_since=None))
        assert "SetSyncNames" not in verbs(decide(served))

    def test_alone_they_may_come_as_soon_as_that_is_recorded(self):
        alone = replace(self.closed, replicas=(), sync_names=())
        assert "Admit" in verbs(decide(solo_leader(server=alone, memory=self.back)))


class TestPause:
    """I7."""

    paused = replace(SYNC, pause=Pause(WALL_S + 600, "ada"))

    def test_a_pause_is_a_long_permission(self):
        decision = decide(leader(store=store(self.paused)))
        (extend,) = done(decision, ExtendFence)
        assert extend == ExtendFence(3, NOW_S + 600)

    def test_a_dead_postgres_stays_dead_and_nobody_is_asked(self):
        decision = decide(leader(server=CRASHED, fence=IDLE, store=store(self.paused), memory=DEAD))
        assert verbs(decision) in ([], ["renew"])
        assert decision.problem is not None

    def test_its_long_permission_ends_before_the_pause_does(self):
        """I8: after the swap others may claim, and this agent may be dead."""
        over = store(replace(SYNC, pause=Pause(WALL_S - 1, "ada")))
        long = replace(ARMED, deadline_s=NOW_S + 600)
        decision = decide(leader(store=over, fence=long))
        assert verbs(decision) == ["ExtendFence", "resume"]
        (extend,) = done(decision, ExtendFence)
        assert extend == ExtendFence(3, NOW_S - 0.4 + 4.5)

    def test_with_hardly_any_permission_left_it_renews_before_it_ends_the_pause(self):
        over = store(replace(SYNC, pause=Pause(WALL_S - 1, "ada")))
        old = Renewed(3, NOW_S - 4.0, solo=False)
        assert "resume" not in verbs(decide(leader(store=over, renewed=old)))
        assert "renew" in verbs(decide(leader(store=over, renewed=old)))

    def test_it_goes_on_while_the_fence_that_keeps_it_cannot_be_told(self):
        """I8: the fence would go by the pause's end although the others do not any more."""
        resume = (request(RequestKind.RESUME),)
        mute = FenceView(False)
        asked = leader(store=store(self.paused, requests=resume), fence=mute)
        assert "resume" not in verbs(decide(asked))
        for down in (CRASHED, replace(CRASHED, run=Run.DYING), ABSENT):
            assert "resume" in verbs(decide(replace(asked, server=down)))
        over = replace(SYNC, pause=Pause(WALL_S - 1, "ada"))
        assert "resume" in verbs(decide(leader(store=store(over), fence=mute)))

    def test_it_ends_by_itself(self):
        over = replace(SYNC, pause=Pause(WALL_S - 1, "ada"))
        for server in (PRIMARY, CRASHED):
            decision = decide(leader(store=store(over), server=server, memory=DEAD))
            (swap,) = done(decision, SwapState)
            assert isinstance(swap, SwapState)
            assert swap.purpose == "resume"
            assert swap.state.pause is None


def test_a_running_primary_never_lets_an_offer_stand():
    offered = store(replace(SYNC, handover=Handover("fra", "x")))
    assert "withdraw" in verbs(decide(leader(store=offered)))


def test_a_silent_postgres_is_said_loudly():
    decision = decide(leader(server=replace(PRIMARY, run=Run.SILENT)))
    assert decision.problem is not None
    assert decision.problem.startswith("FM601")


def test_a_job_is_waited_for():
    busy = leader(server=CRASHED, fence=IDLE, job=Job(JobKind.START, 3, NOW_S), memory=DEAD)
    assert "StartPostgres" not in verbs(decide(busy))
    assert "hand over" not in verbs(decide(busy))


def test_a_start_that_failed_is_tried_again_shortly():
    failed = (result(JobKind.START, error="FM302: refused"),)
    decision = decide(solo_leader(server=CRASHED, fence=IDLE, results=failed, memory=memory()))
    assert "StartPostgres" not in verbs(decision)
    assert decision.problem == "FM302: refused"


def test_a_start_that_failed_hands_over_to_who_can_serve_now():
    failed = (result(JobKind.START, error="FM302: refused"),)
    decision = decide(leader(server=CRASHED, fence=IDLE, results=failed, memory=memory()))
    assert "hand over" in verbs(decision)


def test_what_dies_while_it_recovers_is_not_started_again_at_once():
    started = (result(JobKind.START, ago_s=1),)
    begun = memory(starting_since_s=NOW_S - 1)
    died = solo_leader(server=CRASHED, fence=IDLE, results=started, memory=begun)
    decision = decide(died)
    assert verbs(decision) == []
    assert decision.problem is not None
    assert decision.problem.startswith("FM612")
    assert "hand over" in verbs(decide(replace(died, store=store(SYNC), renewed=FRESH)))


def test_an_old_result_does_not_keep_it_from_starting():
    failed = (result(JobKind.START, error="FM302: refused", ago_s=5.1),)
    decision = decide(leader(server=CRASHED, fence=IDLE, results=failed, memory=memory()))
    assert "StartPostgres" in verbs(decision)


def test_mode_sync_is_what_is_recorded():
    assert SYNC.mode is Mode.SYNC
    assert STANDBY.run is Run.STANDBY
