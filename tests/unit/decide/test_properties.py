"""Whatever a node sees: what `decide` must never do."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from flightmode.decide import decide
from flightmode.model.action import (
    Clone,
    FencePostgres,
    Initdb,
    LiftFence,
    Promote,
    Publish,
    Rewind,
    SetSyncNames,
    StartPostgres,
    SwapState,
)
from flightmode.model.cluster import Handover, Mode, Pause, RequestKind
from flightmode.model.lsn import Lsn
from flightmode.model.server import Role, Run
from flightmode.model.view import Job, JobKind, Renewed, View
from tests.unit.decide.worlds import (
    ABSENT,
    ALL_WELL,
    AMS,
    ARMED,
    CRASHED,
    DETACHED,
    FRA,
    IDLE,
    LIFTED,
    NOW_S,
    PRIMARY,
    RECEIVER,
    SOLO,
    STANDBY,
    STOPPED,
    STOPPED_STANDBY,
    SYNC,
    WALL_S,
    memory,
    request,
    result,
    store,
    view,
)

SERVERS = [
    ABSENT,
    CRASHED,
    STOPPED,
    STOPPED_STANDBY,
    STANDBY,
    DETACHED,
    PRIMARY,
    replace(DETACHED, receiver=RECEIVER),
    replace(PRIMARY, sync_names=(), sync_since=None),
    replace(PRIMARY, replicas=()),
    replace(PRIMARY, admits_clients=False),
    replace(PRIMARY, prepared=False, slots=()),
    *(replace(CRASHED, run=run) for run in (Run.DYING, Run.STARTING, Run.SILENT)),
]
PAUSE = Pause(WALL_S + 60, "ada")
KINDS = [JobKind.CLONE, JobKind.REWIND, JobKind.START, JobKind.STOP, JobKind.SYNC_NAMES]


@st.composite
def states(draw):
    """Any state that the store could hold."""
    base = draw(st.sampled_from([SYNC, SOLO]))
    return replace(
        base,
        leader=draw(st.sampled_from(["ams", "fra"])),
        sync=() if base.mode is Mode.SOLO else (draw(st.sampled_from(["ams", "fra"])),),
        previous=draw(st.sampled_from([None, "ams", "fra"])),
        handover=draw(st.sampled_from([None, Handover("ams", "x"), Handover("fra", "x")])),
        pause=draw(st.sampled_from([None, None, PAUSE, Pause(WALL_S - 5, "ada")])),
        crashes_wall_s=draw(st.sampled_from([(), (WALL_S - 9,), (WALL_S - 99, WALL_S - 9)])),
        given=base.mode is Mode.SOLO and draw(st.booleans()),
    )


@st.composite
def views(draw) -> View:
    """Any moment, likely or not."""
    state = draw(st.one_of(st.none(), states()))
    kinds = draw(st.lists(st.sampled_from(list(RequestKind)), max_size=2, unique=True))
    told = store(
        state,
        reachable=draw(st.booleans()),
        state_changed_s=NOW_S - draw(st.sampled_from([0.1, 4.9, 5.0, 60.0])),
        in_doubt=draw(st.sampled_from([None, None, 0 if state is None else 90])),
        saw_term_begin=draw(st.booleans()),
        members=draw(st.sampled_from([ALL_WELL, ALL_WELL[:1], ()])),
        requests=tuple(
            request(kind, draw(st.sampled_from(["ams", "fra"])), until_wall_s=WALL_S + 9)
            for kind in kinds
        ),
    )
    kind = draw(st.sampled_from(KINDS))
    remembered = memory(
        term=draw(st.sampled_from([2, 3])),
        primary_since_s=draw(st.sampled_from([None, NOW_S - 1, NOW_S - 60])),
        crashed=draw(st.booleans()),
        fenced=draw(st.booleans()),
        promote_asked=draw(st.booleans()),
        unguarded_since_s=draw(st.sampled_from([None, NOW_S - 6])),
        promoting_since_s=draw(st.sampled_from([None, NOW_S - 1, NOW_S - 6])),
        offered_since_s=draw(st.sampled_from([None, NOW_S - 1, NOW_S - 6])),
        admit_from=draw(st.sampled_from([None, Lsn(1)])),
        task=draw(st.sampled_from([None, "r1"])),
        task_stage=draw(st.sampled_from(["", "checkpoint", "stop", "clone"])),
        task_since_s=NOW_S - 1,
    )
    renewed = st.builds(
        Renewed, st.sampled_from([2, 3]), st.sampled_from([NOW_S - 0.4, NOW_S - 6]), st.booleans()
    )
    return view(
        draw(st.sampled_from([AMS, FRA])),
        server=draw(st.sampled_from(SERVERS)),
        fence=draw(st.sampled_from([ARMED, LIFTED, IDLE, replace(IDLE, reachable=False)])),
        renewed=draw(st.one_of(st.none(), renewed)),
        job=draw(st.sampled_from([None, None, Job(kind, 3, NOW_S - 1)])),
        results=draw(st.sampled_from([(), (result(kind),), (result(kind, error="FM201: x"),)])),
        store=told,
        memory=remembered,
    )


def check(moment: View) -> None:
    """Every rule that holds for whatever moment."""
    decision = decide(moment)
    state, me = moment.store.state, moment.me.name
    swaps = [a for a in decision.actions if isinstance(a, SwapState)]
    assert decision.wake_s > 0
    if not moment.store.reachable:
        assert decision.actions == ()
        return
    for swap in swaps:
        if state is not None and state.leader != me:
            if swap.purpose == "take back":
                assert state.given
                assert state.previous == me
                assert moment.server == STOPPED
                continue
            claims = swap.purpose == "claim"
            forced = any(r.kind is RequestKind.FAILOVER for r in moment.store.requests)
            assert claims
            assert forced or me in state.sync
            assert moment.server.receiver is None
            assert moment.server.following is None
            assert moment.server.run is Run.STANDBY
    kinds = {type(action) for action in decision.actions} - {Publish}
    if state is not None and moment.store.in_doubt is not None:
        settling = {SwapState} if state.leader == me else kinds
        assert kinds <= settling
        assert not kinds & {LiftFence, SetSyncNames, Promote}
    if state is not None and state.pause == PAUSE:
        assert FencePostgres not in kinds
        assert not any(s.purpose in ("hand over", "switch over") for s in swaps)
    if state is not None and state.given and Promote in kinds:
        assert [swap.purpose for swap in swaps] == ["take up"]
    if state is None or state.leader != me:
        assert not kinds & {Promote, LiftFence, SetSyncNames}
        starts = [a for a in decision.actions if isinstance(a, StartPostgres)]
        assert all(start.role is Role.STANDBY for start in starts)
    else:
        assert not kinds & {Clone, Rewind, Initdb}
    if state is not None:
        assert Initdb not in kinds


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(views())
def test_whatever_it_sees_it_keeps_the_rules(moment):
    check(moment)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(views())
def test_the_same_view_gives_the_same_decision(moment):
    assert decide(moment) == decide(moment)
