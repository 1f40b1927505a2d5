"""What a node does that does not lead, and how it comes back (S9)."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.model.action import (
    Clone,
    FinishRequest,
    Follow,
    Publish,
    Rewind,
    StartPostgres,
    StopPostgres,
)
from flightmode.model.cluster import Pause, RequestKind
from flightmode.model.lsn import Lsn
from flightmode.model.server import Role, Run, Slot
from flightmode.model.timeline import History, Switch
from flightmode.model.view import Job, JobKind
from tests.unit.decide.worlds import (
    ABSENT,
    ALL_WELL,
    AMS,
    ARMED,
    CRASHED,
    DETACHED,
    HERE,
    IDLE,
    NOW_S,
    ON_3,
    PRIMARY,
    SOLO,
    STANDBY,
    STOPPED,
    STOPPED_STANDBY,
    SYNC,
    WALL_S,
    done,
    follower,
    member,
    memory,
    request,
    result,
    seen,
    store,
    verbs,
)

PROMOTED = History(4, (*ON_3.ancestors, Switch(3, Lsn(0x4800000))))
"""The leader went from timeline 3 to 4 before the position where this node stands."""


def led_by(history, *, state=SOLO, fresh: bool = True, **changes):
    """A store whose leader tells this history, and serves alone unless said otherwise."""
    ams, fra, wit = ALL_WELL
    told = replace(ams.member, history=history, **changes)
    return store(state, members=(seen(told, ago_s=0.3 if fresh else 30), fra, wit))


@pytest.mark.parametrize("server", [STANDBY, STOPPED_STANDBY, CRASHED, ABSENT])
def test_who_does_not_know_the_leader_leaves_everything_as_it_is(server):
    """Nodes are changed one after the other, and each has its own copy of flightmode.toml."""
    decision = decide(follower(server=server, store=store(replace(SYNC, leader="ber"))))
    assert verbs(decision) == []
    assert "FM613: ber leads" in str(decision.problem)


class TestOnlyTheLeaderRunsAPrimary:
    def test_another_primary_is_stopped_at_once(self):
        assert verbs(decide(follower(server=PRIMARY, fence=ARMED))) == ["FencePostgres"]

    def test_also_one_that_is_only_starting(self):
        starting = replace(CRASHED, run=Run.STARTING)
        assert verbs(decide(follower(server=starting, fence=ARMED))) == ["FencePostgres"]

    def test_not_while_paused(self):
        paused = store(replace(SYNC, pause=Pause(WALL_S + 60, "ada")))
        decision = decide(follower(server=PRIMARY, fence=ARMED, store=paused))
        assert verbs(decision) == []
        assert decision.problem is not None
        assert decision.problem.startswith("FM609")


class TestPassedOver:
    """By a forced failover: ams may have begun a namesake of the timeline that fra is on (I2)."""

    forced = replace(SOLO, passed_over=("fra", "wit"))
    elsewhere = replace(STANDBY, following="wit", receiver=None)

    def test_it_does_not_follow_where_it_is(self):
        decision = decide(follower(server=self.elsewhere, store=led_by(ON_3, state=self.forced)))
        assert verbs(decision) == ["StopPostgres"]

    def test_it_waits_for_the_leader_to_compare_with(self):
        silent = led_by(ON_3, state=self.forced, run=Run.STANDBY)
        assert verbs(decide(follower(server=self.elsewhere, store=silent))) == []

    def test_on_the_first_timeline_it_follows(self):
        first = replace(self.elsewhere, history=History(1), position=Lsn(0x900000))
        decision = decide(follower(server=first, store=led_by(ON_3, state=self.forced)))
        assert Follow(3, "ams") in decision.actions

    def test_once_it_is_copied_it_follows(self):
        copied = (result(JobKind.CLONE),)
        forced = led_by(ON_3, state=self.forced)
        decision = decide(follower(server=self.elsewhere, store=forced, results=copied))
        assert Follow(3, "ams") in decision.actions

    @pytest.mark.parametrize("copied", [False, True])
    def test_when_it_is_down_it_starts_only_once_it_is_copied(self, copied):
        results = (result(JobKind.CLONE),) if copied else ()
        forced = led_by(ON_3, state=self.forced)
        decision = decide(follower(server=STOPPED_STANDBY, store=forced, results=results))
        start = StartPostgres(Role.STANDBY, 3, None, "ams")
        assert (start if copied else Clone(3, "ams")) in decision.actions


class TestStreaming:
    def test_a_settled_standby_is_left_alone(self):
        assert verbs(decide(follower())) == []

    def test_it_follows_whoever_leads(self):
        elsewhere = replace(STANDBY, following="10.9.9.9:5432")
        assert Follow(3, "ams") in decide(follower(server=elsewhere)).actions

    def test_a_diverged_standby_is_stopped_to_be_rewound(self):
        decision = decide(follower(store=led_by(PROMOTED)))
        assert verbs(decision) == ["StopPostgres"]

    def test_one_that_stands_before_the_fork_only_follows(self):
        behind = replace(STANDBY, position=Lsn(0x4800000))
        assert verbs(decide(follower(store=led_by(PROMOTED), server=behind))) == []

    def test_a_standby_whose_slot_is_lost_is_stopped_to_be_cloned(self):
        lost = led_by(ON_3, slots=(Slot("fra", False, "lost"),))
        assert verbs(decide(follower(store=lost))) == ["StopPostgres"]

    def test_going_astray_becomes_a_problem_after_a_while(self):
        deaf = replace(STANDBY, receiver=None)
        first = decide(follower(server=deaf))
        assert first.memory.astray_since_s == NOW_S
        assert first.problem is None
        lost = decide(follower(server=deaf, memory=memory(astray_since_s=NOW_S - 31)))
        assert lost.problem is not None
        assert lost.problem.startswith("FM610")

    def test_the_target_of_a_switchover_looks_often(self):
        asked = store(requests=(request(RequestKind.SWITCHOVER, "fra"),))
        assert decide(follower(store=asked)).wake_s <= 0.02

    def test_and_oftener_while_nobody_can_write(self):
        ams, *others = ALL_WELL
        asked = request(RequestKind.SWITCHOVER, "fra")
        settles = replace(ams.member, job=JobKind.STOP)
        serving = store(members=(seen(settles), *others), requests=(asked,))
        assert decide(follower(store=serving)).wake_s > 0.005, "its clients write on"
        ends = seen(replace(settles, run=Run.STARTING))
        stopping = store(members=(ends, *others), requests=(asked,))
        assert decide(follower(store=stopping)).wake_s <= 0.005


class TestComingBack:
    def down(self, server, **changes):
        """It is down, and the leader has recorded that it serves alone."""
        alone = store(SOLO)
        return follower(**{"server": server, "fence": IDLE, "store": alone, **changes})

    def test_without_data_it_clones(self):
        assert Clone(3, "ams") in decide(self.down(ABSENT)).actions

    @pytest.mark.parametrize("server", [ABSENT, CRASHED], ids=["empty", "old primary"])
    def test_without_a_primary_to_copy_or_compare_it_waits(self, server):
        decision = decide(self.down(server, store=led_by(ON_3, fresh=False)))
        assert verbs(decision) == []

    def test_a_leader_that_is_not_promoted_yet_is_waited_for(self):
        early = led_by(ON_3, run=Run.STANDBY)
        assert verbs(decide(self.down(CRASHED, store=early))) == []

    def test_a_crashed_primary_is_rewound(self):
        assert Rewind(3, "ams") in decide(self.down(CRASHED, store=led_by(PROMOTED))).actions

    def test_a_leader_that_was_passed_over_is_copied_and_never_rewound(self):
        """A forced failover left it alone with what it had acknowledged (I10)."""
        forced = led_by(PROMOTED, state=replace(SOLO, passed_over=("fra",)))
        assert Clone(3, "ams") in decide(self.down(CRASHED, store=forced)).actions

    def test_a_cleanly_stopped_primary_before_the_fork_just_follows(self):
        assert STOPPED.data is not None
        before = replace(STOPPED, data=replace(STOPPED.data, position=Lsn(0x47FFF00)))
        decision = decide(self.down(before, store=led_by(PROMOTED)))
        assert StartPostgres(Role.STANDBY, 3, None, "ams") in decision.actions

    def test_one_whose_last_record_the_new_leader_did_not_get_is_rewound(self):
        assert STOPPED.data is not None
        at_fork = replace(STOPPED, data=replace(STOPPED.data, position=Lsn(0x4800000)))
        assert Rewind(3, "ams") in decide(self.down(at_fork, store=led_by(PROMOTED))).actions

    def test_a_primary_on_the_leader_s_own_timeline_is_cloned(self):
        """pg_rewind would see one number and do nothing."""
        assert Clone(3, "ams") in decide(self.down(STOPPED)).actions

    def test_a_namesake_of_the_leader_s_timeline_is_cloned(self):
        """Both were promoted to timeline 4, apart from each other."""
        assert STOPPED_STANDBY.data is not None
        forked_elsewhere = History(4, (*ON_3.ancestors, Switch(3, Lsn(0x4900000))))
        data = replace(STOPPED_STANDBY.data, timeline=4, position=Lsn(0x4A00000))
        namesake = replace(STOPPED_STANDBY, data=data, history=forked_elsewhere)
        assert Clone(3, "ams") in decide(self.down(namesake, store=led_by(PROMOTED))).actions

    def test_a_rewind_that_ended_well_and_did_not_help_is_followed_by_a_clone(self):
        rewound = (result(JobKind.REWIND, ago_s=1),)
        decision = decide(self.down(CRASHED, store=led_by(PROMOTED), results=rewound))
        assert Clone(3, "ams") in decision.actions

    @pytest.mark.parametrize(
        ("server", "history"),
        [(ABSENT, ON_3), (CRASHED, PROMOTED), (STOPPED, ON_3)],
        ids=["to be cloned", "to be rewound", "on the same timeline"],
    )
    def test_while_the_leader_counts_on_it_its_data_are_left_alone(self, server, history):
        """I5: a node being cloned or rewound is never promotable."""
        decision = decide(self.down(server, store=led_by(history, state=SYNC)))
        assert (decision.rule, verbs(decision)) == ("rejoin: counted on", [])

    def test_one_that_was_only_stopped_is_started_though_it_is_counted_on(self):
        decision = decide(self.down(STOPPED_STANDBY, store=store(SYNC)))
        assert StartPostgres(Role.STANDBY, 3, None, "ams") in decision.actions

    def test_what_ended_while_it_started_is_not_started_again_at_once(self):
        started = (result(JobKind.START, ago_s=1),)
        decision = decide(self.down(STOPPED_STANDBY, results=started))
        assert verbs(decision) == []
        assert decision.problem is not None
        assert decision.problem.startswith("FM612")
        later = (result(JobKind.START, ago_s=5.1),)
        assert "StartPostgres" in verbs(decide(self.down(STOPPED_STANDBY, results=later)))

    def test_what_was_stopped_after_its_start_did_not_die_of_it(self):
        asked = (result(JobKind.START, ago_s=1), result(JobKind.STOP, ago_s=0.5))
        assert "StartPostgres" in verbs(decide(self.down(STOPPED_STANDBY, results=asked)))

    def test_a_stopped_standby_starts_again(self):
        decision = decide(self.down(STOPPED_STANDBY))
        assert StartPostgres(Role.STANDBY, 3, None, "ams") in decision.actions

    def test_also_while_there_is_no_primary(self):
        decision = decide(self.down(STOPPED_STANDBY, store=led_by(ON_3, fresh=False)))
        assert StartPostgres(Role.STANDBY, 3, None, "ams") in decision.actions

    def test_a_stopped_standby_that_diverged_is_rewound(self):
        decision = decide(self.down(STOPPED_STANDBY, store=led_by(PROMOTED)))
        assert Rewind(3, "ams") in decision.actions

    def test_a_half_done_rewind_is_replaced_by_a_clone(self):
        assert CRASHED.data is not None
        half = replace(CRASHED, data=replace(CRASHED.data, unfinished="rewind"))
        assert Clone(3, "ams") in decide(self.down(half)).actions

    def test_a_rewind_that_failed_is_followed_by_a_clone_after_a_pause(self):
        failed = (result(JobKind.REWIND, error="FM201: pg_rewind", ago_s=1),)
        assert verbs(decide(self.down(CRASHED, results=failed))) == []
        later = (result(JobKind.REWIND, error="FM201: pg_rewind", ago_s=6),)
        assert Clone(3, "ams") in decide(self.down(CRASHED, results=later)).actions

    def test_a_failure_of_an_earlier_term_does_not_count(self):
        old = (result(JobKind.REWIND, error="FM201: pg_rewind", term=2),)
        decision = decide(self.down(CRASHED, store=led_by(PROMOTED), results=old))
        assert Rewind(3, "ams") in decision.actions

    def test_foreign_data_are_never_touched(self):
        assert CRASHED.data is not None
        foreign = replace(CRASHED, data=replace(CRASHED.data, system_identifier="42"))
        decision = decide(self.down(foreign))
        assert verbs(decision) == []
        assert decision.problem is not None
        assert decision.problem.startswith("FM606")

    def test_data_that_cannot_be_read_are_never_touched(self):
        decision = decide(self.down(replace(CRASHED, data=None)))
        assert verbs(decision) == []
        assert decision.problem is not None

    def test_remnants_are_ended_before_anything_else(self):
        assert verbs(decide(self.down(replace(CRASHED, run=Run.DYING)))) == ["KillRemnants"]

    def test_a_job_is_waited_for(self):
        busy = Job(JobKind.CLONE, 3, NOW_S - 60)
        assert verbs(decide(self.down(ABSENT, job=busy))) == []


class TestRequests:
    def test_reinit_stops_then_clones_then_says_so(self):
        asked = store(SOLO, requests=(request(RequestKind.REINIT, "fra"),))
        first = decide(follower(store=asked))
        assert verbs(first) == ["StopPostgres"]
        then = follower(server=STOPPED_STANDBY, store=asked, memory=first.memory)
        assert Clone(3, "ams") in decide(then).actions
        cloned = (result(JobKind.CLONE, ago_s=0),)
        last = decide(follower(store=asked, memory=first.memory, results=cloned))
        assert verbs(last) == ["FinishRequest"]

    @pytest.mark.parametrize(
        "server",
        [STOPPED_STANDBY, ABSENT, replace(STOPPED_STANDBY, data=None)],
        ids=["stopped", "empty", "unreadable"],
    )
    def test_reinit_of_a_node_that_is_down_clones(self, server):
        asked = store(SOLO, requests=(request(RequestKind.REINIT, "fra"),))
        first = decide(follower(server=server, store=asked))
        assert first.rule == "request: reinit"
        then = follower(server=server, store=asked, memory=first.memory)
        assert Clone(3, "ams") in decide(then).actions

    @pytest.mark.parametrize("run", [Run.STARTING, Run.SILENT])
    def test_reinit_stops_a_server_that_does_not_come_up(self, run):
        asked = store(SOLO, requests=(request(RequestKind.REINIT, "fra"),))
        stuck = replace(STANDBY, run=run)
        assert verbs(decide(follower(server=stuck, store=asked))) == ["StopPostgres"]

    def test_a_running_standby_is_not_stopped_for_a_copy_of_nobody(self):
        """I9: it may be the one that is needed."""
        nobody = led_by(ON_3, fresh=False)
        asked = replace(nobody, requests=(request(RequestKind.REINIT, "fra"),))
        assert "StopPostgres" not in verbs(decide(follower(store=asked)))

    def test_one_that_was_stopped_for_a_copy_starts_again_when_its_source_has_died(self):
        asked = (request(RequestKind.REINIT, "fra"),)
        first = decide(follower(store=store(SOLO, requests=asked)))
        dead = replace(led_by(ON_3, fresh=False), requests=asked)
        then = follower(server=STOPPED_STANDBY, store=dead, memory=first.memory)
        assert "StartPostgres" in verbs(decide(then))

    def test_a_restart_stops_and_starts_once(self):
        asked = store(requests=(request(RequestKind.RESTART, "fra"),))
        first = decide(follower(store=asked))
        assert verbs(first) == ["StopPostgres"]
        assert [stop.settle_s for stop in done(first, StopPostgres)] == [0.0]
        assert not any(told.member.parting for told in done(first, Publish))
        down = follower(server=STOPPED_STANDBY, store=asked, memory=first.memory)
        assert "StartPostgres" in verbs(decide(down))
        stopped = (result(JobKind.STOP, ago_s=0),)
        last = decide(follower(store=asked, memory=first.memory, results=stopped))
        assert verbs(last) == ["FinishRequest"]

    def test_a_restart_whose_stop_failed_is_not_called_done(self):
        asked = store(requests=(request(RequestKind.RESTART, "fra"),))
        first = decide(follower(store=asked))
        failed = (result(JobKind.STOP, error="FM603: still there", ago_s=0),)
        last = decide(follower(store=asked, memory=first.memory, results=failed))
        (finish,) = done(last, FinishRequest)
        assert (finish.ok, finish.why) == (False, "FM603: still there")

    def test_a_reload_is_done_when_postgres_has_taken_the_settings(self):
        asked = store(requests=(request(RequestKind.RELOAD, "fra"),))
        earlier = (result(JobKind.SETTINGS, error="FM206: of before", ago_s=9),)
        first = decide(follower(store=asked, results=earlier))
        assert verbs(first) == ["ApplySettings"]
        under_way = Job(JobKind.SETTINGS, 3, NOW_S)
        meanwhile = follower(store=asked, memory=first.memory, results=earlier, job=under_way)
        assert verbs(decide(meanwhile)) == []
        taken = (result(JobKind.SETTINGS, ago_s=0),)
        last = decide(follower(store=asked, memory=first.memory, results=taken))
        (finish,) = done(last, FinishRequest)
        assert (finish.ok, last.memory.task) == (True, None)

    def test_a_reload_that_postgres_does_not_take_is_not_called_done(self):
        asked = store(requests=(request(RequestKind.RELOAD, "fra"),))
        first = decide(follower(store=asked))
        refused = (result(JobKind.SETTINGS, error="FM206: work_mems", ago_s=0),)
        last = decide(follower(store=asked, memory=first.memory, results=refused))
        (finish,) = done(last, FinishRequest)
        assert (finish.ok, finish.why) == (False, "FM206: work_mems")

    def test_a_reload_waits_for_a_restart_that_is_under_way(self):
        both = (request(RequestKind.RELOAD, "fra", id="r2"), request(RequestKind.RESTART, "fra"))
        restarting = decide(follower(store=store(requests=both[1:])))
        stopped = (result(JobKind.STOP, ago_s=0),)
        asked = follower(store=store(requests=both), memory=restarting.memory, results=stopped)
        assert [finish.request.id for finish in done(decide(asked), FinishRequest)] == ["r1"]

    def test_settings_that_postgres_refuses_are_a_warning_of_the_node(self):
        server = replace(STANDBY, refused_settings=("work_mems",))
        (told,) = done(decide(follower(server=server)), Publish)
        assert told.member.warnings == ("work_mems: PostgreSQL keeps the settings of before",)

    def test_a_request_for_another_node_is_not_ours(self):
        asked = store(requests=(request(RequestKind.RESTART, "ams"),))
        assert verbs(decide(follower(store=asked))) == []


def test_a_detached_standby_without_a_reason_follows_again():
    assert verbs(decide(follower(server=DETACHED))) == ["Follow"]


def test_what_a_node_says_of_itself_is_true():
    told = member(AMS, PRIMARY)
    assert (told.run, told.position) == (Run.PRIMARY, HERE)


class TestForcedToLead:
    """A person accepts a loss of data and names a node whose Postgres is down."""

    quiet = replace(
        led_by(ON_3, fresh=False, run=Run.STOPPED),
        state_changed_s=NOW_S - 5.1,
        requests=(request(RequestKind.FAILOVER, "fra"),),
    )

    @pytest.mark.parametrize("server", [CRASHED, STOPPED, STOPPED_STANDBY])
    def test_it_is_started_to_be_promoted_whatever_it_was(self, server):
        """Nobody is left whose history it could be compared with (I9)."""
        decision = decide(follower(server=server, store=self.quiet))
        (start,) = done(decision, StartPostgres)
        assert start == StartPostgres(Role.STANDBY, 3, None, None)

    def test_not_before_the_old_leader_has_stopped(self):
        early = replace(self.quiet, state_changed_s=NOW_S - 4.9)
        assert "StartPostgres" not in verbs(decide(follower(server=CRASHED, store=early)))

    def test_not_with_data_that_are_no_whole_copy(self):
        half = replace(CRASHED, data=replace(CRASHED.data, unfinished="rewind"))
        assert "StartPostgres" not in verbs(decide(follower(server=half, store=self.quiet)))

    def test_a_start_that_failed_is_not_tried_again_at_once(self):
        failed = (result(JobKind.START, error="FM301: no"),)
        tried = follower(server=CRASHED, store=self.quiet, results=failed)
        assert "StartPostgres" not in verbs(decide(tried))
