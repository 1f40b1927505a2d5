"""S7: checkpoint, stop, prove, give away; any step that fails goes back."""

from dataclasses import replace

import pytest

from flightmode.decide import decide
from flightmode.model.action import FinishRequest, Publish, StopPostgres, SwapState
from flightmode.model.cluster import Mode, Pause, RequestKind
from flightmode.model.lsn import Lsn
from flightmode.model.server import Run
from flightmode.model.view import Job, JobKind
from tests.unit.decide.worlds import (
    ALL_WELL,
    CRASHED,
    HERE,
    IDLE,
    NOW_S,
    SOLO,
    STOPPED,
    SYNC,
    WALL_S,
    done,
    leader,
    memory,
    request,
    result,
    seen,
    store,
    verbs,
)

ASKED = request(RequestKind.SWITCHOVER, "fra")
OLD = {"primary_since_s": NOW_S - 60, "admit_from": Lsn(1)}
STOPPING = memory(**OLD, task="r1", task_stage="stop", task_since_s=NOW_S - 0.3)


def told(position: int, **changes):
    """A store in which fra says that it has flushed so far."""
    ams, fra, wit = ALL_WELL
    there = replace(fra.member, position=Lsn(position), **changes)
    return store(requests=(ASKED,), members=(ams, seen(there), wit))


def down(server=STOPPED, at: int = HERE + 120, **changes):
    base = {"server": server, "fence": IDLE, "store": told(at), "memory": STOPPING}
    return leader(**{**base, **changes})


def test_a_checkpoint_comes_first():
    decision = decide(leader(store=store(requests=(ASKED,))))
    assert verbs(decision)[-1] == "Checkpoint"
    assert decision.memory.task_stage == "checkpoint"


def test_then_postgres_is_stopped():
    checkpointed = memory(**OLD, task="r1", task_stage="checkpoint", task_since_s=NOW_S - 1)
    ready = leader(
        store=store(requests=(ASKED,)), memory=checkpointed, results=(result("checkpoint"),)
    )
    decision = decide(ready)
    (stop,) = done(decision, StopPostgres)
    assert isinstance(stop, StopPostgres)
    assert stop.fast
    assert stop.settle_s > 0
    assert decision.memory.task_stage == "stop"


def test_the_proxies_are_told_before_postgres_is_stopped_and_when_it_stays():
    asked = store(requests=(ASKED,))
    checkpointed = memory(**OLD, task="r1", task_stage="checkpoint", task_since_s=NOW_S - 1)
    before = decide(leader(store=asked, memory=checkpointed))
    assert not any(publication.member.parting for publication in done(before, Publish))
    stops = decide(leader(store=asked, memory=checkpointed, results=(result("checkpoint"),)))
    assert [publication.member.parting for publication in done(stops, Publish)] == [True]
    came_up = replace(STOPPING, published=done(stops, Publish)[0].member)
    stays = decide(leader(store=asked, memory=came_up, results=(result("stop"),)))
    assert stays.rule == "switchover: failed"
    assert [publication.member.parting for publication in done(stays, Publish)] == [False]


def test_a_primary_that_restarts_in_its_place_lets_its_clients_wait_too():
    asked = store(requests=(request(RequestKind.RESTART, "ams"),))
    first = decide(leader(store=asked, memory=memory(**OLD)))
    (stop,) = done(first, StopPostgres)
    assert stop.settle_s > 0
    assert [publication.member.parting for publication in done(first, Publish)] == [True]
    stopped = (result(JobKind.STOP, ago_s=0),)
    again = decide(leader(store=asked, memory=first.memory, results=stopped))
    assert "FinishRequest" in verbs(again)
    assert [publication.member.parting for publication in done(again, Publish)] == [False]


def test_who_did_not_hear_that_its_request_has_ended_is_not_about_to_stop():
    asked = store(requests=(request(RequestKind.RESTART, "ams"),))
    first = decide(leader(store=asked, memory=memory(**OLD)))
    gone = decide(leader(store=store(), memory=first.memory))
    assert [publication.member.parting for publication in done(gone, Publish)] == [False]
    assert (gone.memory.task, gone.memory.task_stage) == (None, "")


def test_the_checkpoint_is_waited_for():
    checkpointed = memory(**OLD, task="r1", task_stage="checkpoint", task_since_s=NOW_S - 1)
    busy = Job(JobKind.CHECKPOINT, 3, NOW_S - 1)
    decision = decide(leader(store=store(requests=(ASKED,)), memory=checkpointed, job=busy))
    assert "StopPostgres" not in verbs(decision)


def test_the_checkpoint_is_waited_for_only_as_long_as_was_asked():
    checkpointed = memory(**OLD, task="r1", task_stage="checkpoint", task_since_s=NOW_S - 60)
    busy = Job(JobKind.CHECKPOINT, 3, NOW_S - 60)
    late = store(requests=(replace(ASKED, expires_wall_s=WALL_S - 1),))
    decision = decide(leader(store=late, memory=checkpointed, job=busy))
    (finish,) = done(decision, FinishRequest)
    assert isinstance(finish, FinishRequest)
    assert not finish.ok
    assert decision.memory.task is None


def test_the_term_goes_to_a_target_that_has_everything():
    decision = decide(down())
    (swap,) = done(decision, SwapState)
    assert isinstance(swap, SwapState)
    assert swap.purpose == "switch over"
    assert (swap.state.leader, swap.state.term) == ("fra", 4)
    assert (swap.state.mode, swap.state.sync) == (Mode.SOLO, ())
    assert verbs(decision).index("switch over") < verbs(decision).index("FinishRequest")


def test_not_before_it_has_flushed_past_the_shutdown_checkpoint():
    decision = decide(down(at=HERE))
    assert "switch over" not in verbs(decision)
    assert decision.rule == "switchover: prove"


@pytest.mark.parametrize(
    "changes",
    [
        {"server": CRASHED},
        {"store": store(SOLO, requests=(ASKED,))},
        {"at": HERE, "memory": replace(STOPPING, task_since_s=NOW_S - 11)},
    ],
    ids=["not stopped cleanly", "target dropped out", "target too slow"],
)
def test_what_goes_wrong_ends_where_it_began(changes):
    decision = decide(down(**changes))
    assert "switch over" not in verbs(decision)
    (finish,) = done(decision, FinishRequest)
    assert isinstance(finish, FinishRequest)
    assert not finish.ok
    assert decision.memory.task is None
    assert not decision.memory.crashed


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (SOLO, "no standby"),
        (replace(SYNC, sync=("ber",)), "does not hold"),
        (replace(SYNC, pause=Pause(WALL_S + 60, "ada")), "paused"),
    ],
)
def test_it_is_refused_with_the_reason(state, words):
    decision = decide(leader(store=store(state, requests=(ASKED,))))
    finishes = [f for f in done(decision, FinishRequest) if isinstance(f, FinishRequest)]
    if state is not SOLO:
        assert finishes
    for finish in finishes:
        assert not finish.ok
        assert words in finish.why
    assert "Checkpoint" not in verbs(decision)


def test_a_target_that_is_not_a_running_standby_is_refused():
    decision = decide(leader(store=told(HERE, run=Run.STARTING)))
    (finish,) = done(decision, FinishRequest)
    assert isinstance(finish, FinishRequest)
    assert "not a running standby" in finish.why


def test_to_the_leader_itself_there_is_nothing_to_do():
    asked = request(RequestKind.SWITCHOVER, "ams")
    decision = decide(leader(store=store(requests=(asked,))))
    (finish,) = done(decision, FinishRequest)
    assert isinstance(finish, FinishRequest)
    assert finish.ok


def test_a_request_that_nobody_carried_out_in_time_ends():
    late = replace(ASKED, expires_wall_s=WALL_S - 1)
    decision = decide(leader(store=store(requests=(late,))))
    (finish,) = done(decision, FinishRequest)
    assert isinstance(finish, FinishRequest)
    assert "expired" in finish.why


def test_a_postgres_that_came_up_again_ends_the_switchover():
    decision = decide(
        leader(store=store(requests=(ASKED,)), memory=STOPPING, results=(result("stop"),))
    )
    (finish,) = done(decision, FinishRequest)
    assert isinstance(finish, FinishRequest)
    assert not finish.ok
