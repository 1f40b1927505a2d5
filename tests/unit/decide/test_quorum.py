"""S2: the order in which the sync set grows and shrinks."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.model.action import ExtendFence, SetSyncNames, SwapState
from flightmode.model.cluster import Mode
from flightmode.model.heartbeat import Heard, Listening
from flightmode.model.lsn import Lsn
from flightmode.model.member import Node, NodeKind
from flightmode.model.memory import Memory, Watched
from flightmode.model.server import FenceView, Replica
from flightmode.model.view import Job, JobKind, MemberSeen, Renewed, View
from tests.unit.decide.worlds import (
    ALL_WELL,
    AMS,
    ARMED,
    FRA,
    HERE,
    LIFTED,
    NOW_S,
    POLICY,
    PRIMARY,
    SOLO,
    STANDBY,
    STREAMING,
    WIT,
    leader,
    member,
    memory,
    result,
    seen,
    solo_leader,
    store,
    verbs,
)

NO_NAMES = replace(PRIMARY, sync_names=(), sync_since=None)
LONELY = replace(PRIMARY, replicas=())
OLD = {"primary_since_s": NOW_S - 60, "admit_from": Lsn(1)}


def test_all_well_means_nothing_to_do():
    assert verbs(decide(leader())) in ([], ["ExtendFence"])


class TestSomebodyElsesNames:
    """ALTER SYSTEM SET synchronous_standby_names = '…': it is read after our own file (I2)."""

    OVERRULED = replace(PRIMARY, sync_names=(), sync_since=None)

    @pytest.mark.parametrize("names", [(), ("?",), ("ber",)], ids=["nobody", "another text", "ber"])
    def test_that_it_does_not_wait_any_more_is_recorded_before_anything_else(self, names):
        server = replace(PRIMARY, sync_names=names, sync_since=None)
        decision = decide(leader(server=server))
        assert verbs(decision)[-2:] == ["degrade", "LiftFence"]
        assert "SetSyncNames" not in verbs(decision)
        assert decision.problem.startswith("FM631: ")
        assert dict(decision.memory.removed) == {"fra": NOW_S}

    def test_while_a_job_runs_too(self):
        job = Job(JobKind.PREPARE, 3, NOW_S - 1)
        assert "degrade" in verbs(decide(leader(server=self.OVERRULED, job=job)))

    def test_before_clients_come_in_it_is_only_set_again(self):
        closed = replace(self.OVERRULED, admits_clients=False)
        decision = decide(leader(server=closed))
        assert verbs(decision)[-1] == "SetSyncNames"
        assert decision.problem is None

    def test_it_is_told_until_it_is_over(self):
        told = memory(primary_since_s=NOW_S - 60, admit_from=Lsn(1), overruled=True)
        assert "FM631" in str(decide(solo_leader(server=self.OVERRULED, memory=told)).problem)
        assert decide(solo_leader(memory=told)).problem is None
        assert decide(leader(memory=told)).problem is None

    def test_an_agent_that_was_started_anew_tells_it_once_it_has_tried(self):
        failed = result(JobKind.SYNC_NAMES, error="FM212: it did not become so")
        decision = decide(solo_leader(server=self.OVERRULED, results=(failed,)))
        assert "FM631" in str(decision.problem)

    def test_a_standby_that_streamed_all_the_while_waits_like_one_that_flapped(self):
        def after(ago_s: float) -> Memory:
            return replace(memory(**OLD), removed=(("fra", NOW_S - ago_s),), overruled=True)

        assert verbs(decide(solo_leader(server=NO_NAMES, memory=after(9.0)))) == []
        again = decide(solo_leader(server=NO_NAMES, memory=after(11.0)))
        assert SetSyncNames(3, ("fra",)) in again.actions

    def test_what_others_wait_for_is_not_cleared_in_vain(self):
        """Setting ours would last ten seconds, in which nothing is renewed."""
        foreign = replace(PRIMARY, sync_names=("?",), sync_since=None, replicas=())
        told = memory(primary_since_s=NOW_S - 60, admit_from=Lsn(1), overruled=True)
        assert verbs(decide(solo_leader(server=foreign, memory=told))) == []


class TestGrowing:
    def test_first_commits_are_made_to_wait(self):
        decision = decide(solo_leader(server=NO_NAMES))
        assert SetSyncNames(3, ("fra",)) in decision.actions

    def test_then_it_is_recorded_with_the_fence_armed_before(self):
        decision = decide(solo_leader())
        assert verbs(decision) == ["ExtendFence", "add"]
        (extend,) = (a for a in decision.actions if isinstance(a, ExtendFence))
        assert extend.deadline_s == NOW_S - 0.4 + 5 * 0.9
        (swap,) = (a for a in decision.actions if isinstance(a, SwapState))
        assert (swap.state.mode, swap.state.sync, swap.state.term) == (Mode.SYNC, ("fra",), 3)

    def test_not_before_the_setting_is_proven(self):
        unproven = replace(PRIMARY, sync_since=None)
        assert "add" not in verbs(decide(solo_leader(server=unproven)))

    def test_not_before_the_standby_has_flushed_what_the_proof_says(self):
        behind = replace(STREAMING, flushed=Lsn(0x3FFFFFF))
        late = replace(PRIMARY, replicas=(behind,), position=Lsn(0x4000010))
        assert "add" not in verbs(decide(solo_leader(server=late)))

    def test_not_while_the_fence_cannot_be_given_its_deadline(self):
        """The leader goes on to renew and to publish all the while."""
        moment = solo_leader(fence=FenceView(False), renewed=Renewed(3, NOW_S - 1.2, solo=True))
        assert verbs(decide(moment)) == ["renew"]

    def test_not_while_the_walsender_calls_it_async(self):
        row = replace(STREAMING, sync_state="async")
        assert "add" not in verbs(decide(solo_leader(server=replace(PRIMARY, replicas=(row,)))))

    def test_not_while_the_store_has_confirmed_nothing_lately(self):
        """The deadline that it begins could be over before the swap's outcome is known (I6)."""
        old = Renewed(3, NOW_S - 1.6, solo=True)
        assert "add" not in verbs(decide(solo_leader(renewed=old)))

    def test_not_with_a_permission_that_is_nearly_over(self):
        old = Renewed(3, NOW_S - 4.2, solo=True)
        assert "add" not in verbs(decide(solo_leader(renewed=old)))

    def test_not_a_standby_that_is_far_behind(self):
        far = replace(STREAMING, flushed=Lsn(HERE - (2 << 20)))
        decision = decide(solo_leader(server=replace(NO_NAMES, replicas=(far,))))
        assert "SetSyncNames" not in verbs(decision)

    def test_not_a_standby_that_has_just_begun_to_stream(self):
        young = memory(**OLD, watched=(Watched("fra", NOW_S - 0.9, NOW_S, "x"),))
        assert "SetSyncNames" not in verbs(decide(solo_leader(server=NO_NAMES, memory=young)))

    def test_a_standby_that_flapped_waits_longer(self):
        nine_s = (Watched("fra", NOW_S - 9, NOW_S, "x"),)
        flapped = memory(**OLD, watched=nine_s, removed=(("fra", NOW_S - 20),))
        decision = decide(solo_leader(server=NO_NAMES, memory=flapped))
        assert "SetSyncNames" not in verbs(decision)
        long_ago = memory(**OLD, watched=nine_s, removed=(("fra", NOW_S - 61),))
        decision = decide(solo_leader(server=NO_NAMES, memory=long_ago))
        assert "SetSyncNames" in verbs(decision)

    def test_not_a_standby_with_a_problem(self):
        ams, fra, wit = ALL_WELL
        sick = replace(fra, member=replace(fra.member, problem="FM610: astray"))
        told = store(SOLO, members=(ams, sick, wit))
        assert "SetSyncNames" not in verbs(decide(solo_leader(server=NO_NAMES, store=told)))

    def test_a_failed_try_is_not_repeated_at_once(self):
        failed = (result(JobKind.SYNC_NAMES, error="FM212: not proven"),)
        decision = decide(solo_leader(server=NO_NAMES, results=failed))
        assert "SetSyncNames" not in verbs(decision)

    def test_a_stranger_is_never_waited_for(self):
        row = replace(STREAMING, name="somebody")
        known = memory(**OLD, watched=(Watched("somebody", NOW_S - 60, NOW_S, "x"),))
        server = replace(NO_NAMES, replicas=(row,))
        assert "SetSyncNames" not in verbs(decide(solo_leader(server=server, memory=known)))


class TestShrinking:
    def test_a_standby_that_is_gone_is_first_recorded_as_gone(self):
        decision = decide(leader(server=LONELY))
        assert verbs(decision)[-3:] == ["degrade", "LiftFence", "SetSyncNames"]
        assert SetSyncNames(3, ()) in decision.actions
        assert decision.memory.removed == (("fra", NOW_S),)

    def test_a_standby_that_says_nothing_is_as_good_as_gone(self):
        mute = memory(**OLD, watched=(Watched("fra", NOW_S - 60, NOW_S - 2.1, f"12:00:00 {HERE}"),))
        assert "degrade" in verbs(decide(leader(memory=mute)))

    def test_only_then_commits_may_go_without_it(self):
        decision = decide(solo_leader(server=LONELY))
        assert verbs(decision) == ["SetSyncNames"]
        assert SetSyncNames(3, ()) in decision.actions

    def test_in_doubt_commits_go_on_waiting(self):
        doubt = store(SOLO, in_doubt=90)
        decision = decide(solo_leader(server=LONELY, store=doubt))
        assert verbs(decision) == ["renew"]

    def test_a_former_life_s_swap_is_settled_before_commits_stop_waiting(self):
        decision = decide(solo_leader(server=LONELY, renewed=None))
        assert verbs(decision) == ["renew"]

    def test_mode_solo_recorded_by_another_s_swap_is_believed_when_the_term_was_seen_to_begin(self):
        fresh = store(SOLO, saw_term_begin=True)
        decision = decide(solo_leader(server=LONELY, renewed=None, store=fresh))
        assert "SetSyncNames" in verbs(decision)

    def test_the_deadline_is_lifted_only_in_confirmed_solo(self):
        decision = decide(solo_leader(server=replace(LONELY, sync_names=()), fence=ARMED))
        assert "LiftFence" in verbs(decision)
        assert "LiftFence" not in verbs(decide(leader()))

    def test_a_primary_that_has_just_come_up_gives_its_standby_time(self):
        young = memory(primary_since_s=NOW_S - 1.0, watched=(), admit_from=Lsn(1))
        assert "degrade" not in verbs(decide(leader(server=LONELY, memory=young)))


def test_names_that_drifted_are_set_again_before_clients_come_in():
    drifted = replace(PRIMARY, sync_names=("?",), sync_since=None, admits_clients=False)
    assert SetSyncNames(3, ("fra",)) in decide(leader(server=drifted)).actions


def test_names_that_are_still_being_proven_are_cleared_when_the_candidate_is_gone():
    """Else every write hangs for the length of a CHECKPOINT."""
    proving = Job(JobKind.SYNC_NAMES, 3, NOW_S - 0.3)
    waiting = replace(LONELY, sync_since=None)
    decision = decide(solo_leader(server=waiting, job=proving))
    assert verbs(decision) == ["SetSyncNames"]
    assert SetSyncNames(3, ()) in decision.actions


def test_nobody_is_recorded_while_the_names_are_being_proven():
    proving = Job(JobKind.SYNC_NAMES, 3, NOW_S - 0.3)
    assert "add" not in verbs(decide(solo_leader(job=proving)))


def test_nothing_is_set_while_a_job_runs():
    busy = solo_leader(server=NO_NAMES, job=Job(JobKind.PREPARE, 3, NOW_S))
    assert "SetSyncNames" not in verbs(decide(busy))


def test_the_fence_is_not_lifted_between_arming_and_recording():
    assert "LiftFence" not in verbs(decide(solo_leader(fence=ARMED)))
    assert "LiftFence" not in verbs(decide(solo_leader(fence=LIFTED)))


def test_a_standby_that_is_added_was_passed_over_no_longer():
    waiting = store(replace(SOLO, passed_over=("fra",)))
    (added,) = (a for a in decide(solo_leader(store=waiting)).actions if isinstance(a, SwapState))
    assert added.state.sync == ("fra",)
    assert added.state.passed_over == ()


class TestALostHost:
    """Without replies and without heartbeats less silence is enough."""

    @staticmethod
    def listening(silent_s: float, **changes: float | None) -> Listening:
        at_s = NOW_S - silent_s
        heard = replace(Heard("fra", at_s, at_s, at_s), **changes)  # type: ignore[arg-type]
        return Listening(NOW_S - 60, NOW_S - 60, (heard,))

    @staticmethod
    def quiet(silent_s: float) -> Memory:
        marker = f"12:00:00 {HERE}"
        return memory(watched=(Watched("fra", NOW_S - 60, NOW_S - silent_s, marker),), **OLD)

    def test_a_standby_whose_host_is_silent_too_is_left_out_sooner(self) -> None:
        lost = leader(memory=self.quiet(0.5), listening=self.listening(0.81))
        assert "degrade" in verbs(decide(lost))

    def test_one_heartbeat_is_enough_to_wait(self) -> None:
        heard = self.listening(0.9, agent_tcp_s=NOW_S - 0.7)
        assert "degrade" not in verbs(decide(leader(memory=self.quiet(0.5), listening=heard)))

    def test_what_was_never_heard_says_nothing(self) -> None:
        unheard = self.listening(0.9, fence_s=None)
        assert "degrade" not in verbs(decide(leader(memory=self.quiet(0.5), listening=unheard)))

    def test_a_standby_that_replies_is_not_left_out_for_its_heartbeats(self) -> None:
        lost = leader(memory=self.quiet(0.3), listening=self.listening(5.0))
        assert "degrade" not in verbs(decide(lost))

    def test_without_heartbeats_it_takes_as_long_as_before(self) -> None:
        assert "degrade" not in verbs(decide(leader(memory=self.quiet(1.9))))
        assert "degrade" in verbs(decide(leader(memory=self.quiet(2.0))))

    def test_it_looks_again_when_the_silence_is_long_enough(self) -> None:
        soon = leader(memory=self.quiet(0.5), listening=self.listening(0.7))
        assert decide(soon).wake_s == pytest.approx(0.1)


class TestWhoIsToGo:
    """flightmode.toml does not have fra any more, and its machine is still there."""

    BER = Node("ber", NodeKind.DATABASE, "10.0.0.4")
    without = replace(POLICY, nodes=(AMS, BER, WIT))
    watched = (
        Watched("fra", NOW_S - 30, NOW_S - 0.1, "1"),
        Watched("ber", NOW_S - 30, NOW_S - 0.1, "1"),
    )
    streaming = replace(STREAMING, name="ber", sync_state="async")

    def leads(self, *members: MemberSeen, replicas: tuple[Replica, ...]) -> View:
        there = (*store().members, *members)
        return leader(
            policy=self.without,
            memory=memory(watched=self.watched, **OLD),
            server=replace(PRIMARY, replicas=replicas),
            store=store(members=there),
        )

    def test_it_is_relieved_once_another_one_is_ready(self):
        ber = seen(replace(member(FRA, STANDBY), name="ber"))
        decision = decide(self.leads(ber, replicas=(STREAMING, self.streaming)))
        (swap,) = (a for a in decision.actions if isinstance(a, SwapState))
        assert (swap.state.mode, swap.state.sync) == (Mode.SOLO, ())
        assert "fra is to go" in decision.why

    def test_it_is_held_on_to_while_it_is_the_only_copy(self):
        assert "degrade" not in verbs(decide(self.leads(replicas=(STREAMING,))))
