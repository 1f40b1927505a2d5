"""The state names another node: this one is a standby of it, or becomes one."""

from dataclasses import replace

from flightmode.decide.answer import IDLE_S, SOON_S, answer, died_starting, recently_failed
from flightmode.decide.election import election, forced_now, paused
from flightmode.decide.leading import wrong_data
from flightmode.decide.members import fresh
from flightmode.decide.permission import lease_s, silent_for_s, state_of
from flightmode.decide.requests import own_task, planned_stop, wanted
from flightmode.decide.suspicion import until_suspicion_s
from flightmode.decide.switchover import take_back
from flightmode.model.action import (
    Clone,
    FencePostgres,
    FinishRequest,
    Follow,
    KillRemnants,
    Rewind,
    StartPostgres,
    StopPostgres,
)
from flightmode.model.cluster import Mode, Request, RequestKind
from flightmode.model.decision import Decision
from flightmode.model.member import Member
from flightmode.model.server import DataDirectory, Role, Run
from flightmode.model.timeline import History
from flightmode.model.view import JobKind, View

# A standby that should stream and has not for so long gets a person's attention.
_ASTRAY_S = 30.0
# Between two looks for the last of the WAL: nobody can write until it is seen here.
_LAST_WAL_S = 0.005


def following(view: View) -> Decision:
    """What a node does that does not lead."""
    if _plays_primary(view):
        return _step_down(view)
    if view.store.in_doubt is not None and view.server.run is Run.STANDBY:
        return election(view) or _doubt(view)
    match view.server.run:
        case Run.STANDBY:
            return election(view) or _request(view) or _standby(view)
        case Run.DYING:
            kill = KillRemnants(state_of(view).term)
            why = "the postmaster is gone and some of its children are not: ending them"
            return answer(view, "following: remnants", why, kill, wake_s=SOON_S)
        case Run.STARTING | Run.SILENT | Run.PRIMARY:
            return _reinit(view) or _unresponsive(view)
        case Run.STOPPED | Run.ABSENT:
            return _down(view)


def _doubt(view: View) -> Decision:
    why = "a claim of ours has an unknown outcome: doing nothing until it is known"
    return answer(view, "following: settle", why, wake_s=0.05)


def _unresponsive(view: View) -> Decision:
    if view.server.run is Run.STARTING:
        return answer(view, "following: starting", "waiting for Postgres to come up", wake_s=0.1)
    problem = "FM601: Postgres runs here and does not answer"
    return answer(view, "following: silent", "Postgres does not answer", problem=problem)


# ------------------------------------------------------------------ it is a primary


def _plays_primary(view: View) -> bool:
    as_primary = view.fence.reachable and view.fence.running and view.fence.role is Role.PRIMARY
    return view.server.run is Run.PRIMARY or as_primary


def _step_down(view: View) -> Decision:
    """I1: only the leader may run a primary."""
    state = state_of(view)
    if state.pause is not None and view.wall_s < state.pause.until_wall_s:
        problem = f"FM609: a primary runs here although {state.leader} leads; paused, so it stays"
        return answer(view, "following: paused", "paused: nothing is fenced", problem=problem)
    why = f"{state.leader} leads term {state.term}: this node must not run a primary"
    return answer(view, "following: step down", why, FencePostgres(state.term, why), wake_s=SOON_S)


# ------------------------------------------------------------------ it is a standby


def _standby(view: View) -> Decision:
    state = state_of(view)
    leader = _ready_leader(view)
    if view.job is not None:
        return answer(view, "following: job", f"waiting for the job: {view.job.kind}", wake_s=0.1)
    stranger = _led_by_a_stranger(view)
    if stranger is not None:
        return stranger
    if leader is not None and _diverged(view, leader):
        why = f"this standby has WAL that is not in {leader.name}'s history: it has to be rewound"
        return _stop(view, "following: diverged", why)
    if leader is not None and _slot_lost(view, leader):
        why = f"{leader.name} no longer has the WAL that this standby needs: it has to be cloned"
        return _stop(view, "following: slot lost", why)
    if view.server.following != state.leader and _of_unknown_descent(view):
        return _passed_over(view, leader)
    if view.server.following != state.leader:
        follow = Follow(state.term, state.leader)
        why = f"{state.leader} leads term {state.term}: following it"
        return answer(view, "following: follow", why, follow, wake_s=0.1)
    return _settled(view)


def _led_by_a_stranger(view: View) -> Decision | None:
    """Nodes are changed one after the other, and this one has not heard of the newest yet."""
    leader = state_of(view).leader
    if leader in view.policy.databases:
        return None
    why = f"{leader} leads, and no database node is called that in this node's flightmode.toml"
    return answer(view, "following: stranger", why, problem=f"FM613: {why}")


def _settled(view: View) -> Decision:
    """Following the right node: nothing to do but to notice when it does not work."""
    state, receiver = state_of(view), view.server.receiver
    wake_s = _until_claim_s(view)
    if receiver is not None and receiver.streaming:
        memory = view.memory
        if memory.astray_since_s is not None:
            memory = replace(memory, astray_since_s=None)
        role = "promotable" if view.me.name in state.sync else "not promotable yet"
        why = f"standby of {state.leader}, streaming, {role}"
        return answer(view, "following: stream", why, memory=memory, wake_s=wake_s)
    since_s = view.now_s if view.memory.astray_since_s is None else view.memory.astray_since_s
    memory = replace(view.memory, astray_since_s=since_s)
    away_s = view.now_s - since_s
    why = f"standby of {state.leader}, not streaming for {away_s:.0f} s"
    problem = None
    if away_s > _ASTRAY_S and _ready_leader(view) is not None:
        problem = f"FM610: {why} although it is up"
    return answer(view, "following: wait", why, memory=memory, wake_s=wake_s, problem=problem)


def _until_claim_s(view: View) -> float:
    """When to look again: just when the leader's silence would be long enough."""
    state = state_of(view)
    if any(request.kind is RequestKind.SWITCHOVER for request in view.store.requests):
        # The leader waits for our position to pass its last one (S7).
        leader = view.store.member(state.leader)
        stops = leader is not None and leader.job == JobKind.STOP and leader.run is not Run.PRIMARY
        return _LAST_WAL_S if stops else SOON_S
    if state.mode is not Mode.SYNC or view.me.name not in state.sync or paused(view):
        return IDLE_S
    ttl_ends_s = lease_s(view) - silent_for_s(view)
    return min(IDLE_S, max(SOON_S, min(ttl_ends_s, until_suspicion_s(view))))


def _ready_leader(view: View) -> Member | None:
    """The leader's record, if it is fresh and says that its Postgres is this term's primary."""
    state = state_of(view)
    member = view.store.member(state.leader)
    if member is None or not fresh(view, state.leader):
        return None
    ready = member.run is Run.PRIMARY and member.term == state.term and member.history is not None
    return member if ready else None


def _diverged(view: View, leader: Member) -> bool:
    mine, theirs = view.server.history, leader.history
    if mine is None or theirs is None:
        return False
    return _namesake(mine, theirs) or not theirs.contains(mine.timeline, view.server.position)


def _namesake(mine: History | None, theirs: History) -> bool:
    """Two timelines of one number that began elsewhere: two nodes were promoted apart."""
    if mine is None or mine.timeline != theirs.timeline:
        return False
    return mine.ancestors != theirs.ancestors


def _of_unknown_descent(view: View) -> bool:
    """I2: passed over by a forced failover, and not copied since.

    Whoever was forced may begin a timeline of the number, and at the place, at which the leader
    of before had begun one: neither number nor history tells those two apart, and streaming would
    go on in the middle of the other one.  Only the first timeline has no namesake.
    """
    if view.me.name not in state_of(view).passed_over:
        return False
    clone, mine = view.result(JobKind.CLONE), view.server.history
    copied = clone is not None and clone.error is None and clone.term == state_of(view).term
    first = view.server.run is Run.STANDBY and mine is not None and mine.timeline == 1
    return not copied and not first


def _passed_over(view: View, leader: Member | None) -> Decision:
    why = f"passed over for {state_of(view).leader}, and of a timeline that may be a namesake"
    if leader is None:
        return answer(view, "following: passed over", f"{why}: waiting for it", wake_s=0.1)
    return _stop(view, "following: passed over", f"{why}: it has to be copied")


def _slot_lost(view: View, leader: Member) -> bool:
    """Whether the leader says so, in a record newer than our last copy, which made a slot."""
    clone = view.result(JobKind.CLONE)
    if clone is not None and clone.error is None:
        seen = next(seen for seen in view.store.members if seen.member.name == leader.name)
        if seen.changed_s <= clone.ended_s:
            return False
    return any(slot.name == view.me.name and slot.wal_status == "lost" for slot in leader.slots)


def _stop(view: View, rule: str, why: str) -> Decision:
    return answer(view, rule, why, planned_stop(view), wake_s=SOON_S)


def _request(view: View) -> Decision | None:
    return _reinit(view) or own_task(view)


def _reinit(view: View) -> Decision | None:
    """Clone again from the leader; finished when a clone begun after the request has ended well.

    Postgres runs.  Without a primary to copy it goes on: it may be the one that is needed (I9).
    """
    request = _reinit_request(view)
    if request is None:
        return None
    if view.memory.task != request.id or not _cloned(view):
        if _ready_leader(view) is None:
            return None
        return _reinit_begins(view, request, planned_stop(view))
    memory = replace(view.memory, task=None, task_stage="")
    finish = FinishRequest(request, True, "cloned again; the old directory is kept beside")
    return answer(view, "request: reinit done", "cloned as asked", finish, memory=memory)


def _reinit_request(view: View) -> Request | None:
    request = wanted(view, RequestKind.REINIT)
    mine = request is not None and request.node == view.me.name and view.job is None
    return request if mine else None


def _reinit_begins(view: View, request: Request, *actions: StopPostgres) -> Decision:
    memory = replace(view.memory, task=request.id, task_stage="clone", task_since_s=view.now_s)
    why = f"{request.asked_by} asked to clone this node again"
    return answer(view, "request: reinit", why, *actions, memory=memory, wake_s=SOON_S)


def _asked_for(view: View) -> bool:
    """A person asked for a new copy, and it is not made yet."""
    return view.memory.task_stage == "clone" and not _cloned(view)


def _cloned(view: View) -> bool:
    result = view.result(JobKind.CLONE)
    return (
        result is not None and result.error is None and result.ended_s >= view.memory.task_since_s
    )


# ------------------------------------------------------------------ it is down


def _down(view: View) -> Decision:
    """Bring it back as a standby: start, rewind or clone (S9)."""
    state, data, leader = state_of(view), view.server.data, _ready_leader(view)
    if view.job is not None:
        return answer(view, "rejoin: job", f"waiting for the job: {view.job.kind}", wake_s=0.1)
    revived = _revived(view)
    if revived is not None:
        return revived
    if state.pause is not None and paused(view):
        why = "paused: Postgres stays down until `flightmode resume`"
        return answer(view, "rejoin: paused", why)
    stranger = _led_by_a_stranger(view)
    if stranger is not None:
        return stranger
    request = _reinit_request(view)
    if request is not None and view.memory.task != request.id:
        return _reinit_begins(view, request)
    failed = recently_failed(view, JobKind.CLONE, JobKind.REWIND, JobKind.START)
    failed = failed or died_starting(view)
    if failed is not None:
        why = "the last try to come back failed; trying again shortly"
        return answer(view, "rejoin: failed", why, problem=failed)
    if view.server.run is Run.ABSENT or _must_clone(view, data, leader):
        return _clone(view, leader)
    wrong = wrong_data(view, data)
    if wrong is not None:
        return answer(view, "rejoin: unusable data", "not touching this data", problem=wrong)
    assert data is not None
    return take_back(view, data) or _rejoin(view, data, leader)


def _revived(view: View) -> Decision | None:
    """A person wants this node to lead: whatever its data were, they have to run to be promoted.

    As a standby of nobody, so that it is the promotion that begins a timeline of its own.
    """
    reason, data = forced_now(view), view.server.data
    if reason is None or view.server.run is Run.ABSENT or wrong_data(view, data) is not None:
        return None
    if recently_failed(view, JobKind.START) or died_starting(view):
        return None
    start = StartPostgres(Role.STANDBY, state_of(view).term, None, None)
    why = f"{reason}: starting Postgres, so that it can be promoted"
    return answer(view, "rejoin: forced", why, start, wake_s=0.1)


def _must_clone(view: View, data: DataDirectory | None, leader: Member | None) -> bool:
    """Its data are of no use: half made, too old for the leader's WAL, or asked to be replaced."""
    state = state_of(view)
    if leader is not None and _asked_for(view):
        return True
    if data is None or data.system_identifier != state.system_identifier:
        return False
    lost = leader is not None and _slot_lost(view, leader)
    return data.unfinished is not None or _rewind_failed(view) or lost


def _rewind_failed(view: View) -> bool:
    """In this term, and these are still the data that it failed on."""
    rewind, clone = view.result(JobKind.REWIND), view.result(JobKind.CLONE)
    if rewind is None or rewind.error is None or rewind.term != state_of(view).term:
        return False
    return clone is None or clone.error is not None or clone.ended_s < rewind.ended_s


def _clone(view: View, leader: Member | None) -> Decision:
    state = state_of(view)
    if leader is None:
        why = f"a copy of {state.leader}'s data is needed, and it is not a running primary now"
        return answer(view, "rejoin: wait", why)
    if _counted_on(view):
        return _until_not_counted_on(view)
    if not any(slot.name == view.me.name for slot in leader.slots):
        why = f"waiting until {leader.name} has made the roles and the slot that a copy needs"
        return answer(view, "rejoin: wait", why, wake_s=0.2)
    why = f"copying {leader.name}'s data; what was here before is kept beside"
    return answer(view, "rejoin: clone", why, Clone(state.term, leader.name), wake_s=0.1)


def _counted_on(view: View) -> bool:
    state = state_of(view)
    return state.mode is Mode.SYNC and view.me.name in state.sync


def _until_not_counted_on(view: View) -> Decision:
    """I5: a node that is being copied or rewound is never promotable.  Our silence tells."""
    why = f"waiting until {state_of(view).leader} has recorded that it does not count on this node"
    return answer(view, "rejoin: counted on", why, wake_s=0.1)


def _rejoin(view: View, data: DataDirectory, leader: Member | None) -> Decision:
    state = state_of(view)
    fits = leader is not None and _fits(view, data, leader)
    if leader is not None and not fits and _beyond_rewinding(view, data, leader):
        return _clone(view, leader)
    if leader is not None and not fits and _counted_on(view):
        return _until_not_counted_on(view)
    if leader is not None and not fits:
        why = f"this data directory parted from {leader.name}'s history: rewinding it"
        return answer(view, "rejoin: rewind", why, Rewind(state.term, leader.name), wake_s=0.1)
    if leader is None and (data.was_primary or _of_unknown_descent(view)):
        what = "was a primary" if data.was_primary else "was passed over"
        why = f"this {what}; waiting for {state.leader} to be one, to compare histories"
        return answer(view, "rejoin: wait", why, wake_s=0.1)
    start = StartPostgres(Role.STANDBY, state.term, None, state.leader)
    why = f"starting Postgres as a standby of {state.leader}"
    return answer(view, "rejoin: start", why, start, wake_s=0.1)


def _beyond_rewinding(view: View, data: DataDirectory, leader: Member) -> bool:
    """pg_rewind must not, or would do nothing.

    It does nothing between two servers on timelines of one number (pg_rewind.c); nor will it
    help a second time when it has ended well and the directory still does not fit.
    """
    assert leader.history is not None
    if view.me.name in state_of(view).passed_over:
        # What it acknowledged alone may be nowhere else: it is kept beside the copy (I10).
        return True
    rewind, clone = view.result(JobKind.REWIND), view.result(JobKind.CLONE)
    if data.timeline == leader.history.timeline:
        return True
    if rewind is None or rewind.error is not None or rewind.term != state_of(view).term:
        return False
    return clone is None or clone.ended_s < rewind.ended_s


def _fits(view: View, data: DataDirectory, leader: Member) -> bool:
    """Whether the directory is an ancestor of the leader's history as it is.

    A primary that was not stopped cleanly may hold WAL beyond what its control file says,
    and one on the leader's own timeline cannot be told apart by positions.
    """
    assert leader.history is not None
    if _namesake(view.server.history, leader.history) or _of_unknown_descent(view):
        return False
    if not data.was_primary:
        return leader.history.contains(data.timeline, data.position)
    # The position is where the shutdown checkpoint begins, so the history must go on beyond it.
    end = leader.history.end_of(data.timeline)
    return data.shut_down_cleanly and end is not None and data.position < end


__all__ = ["following"]
