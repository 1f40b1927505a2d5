"""A planned change of leader (S7), on the leader's side.

Checkpoint -> the proxies hold, and what is under way ends -> stop Postgres cleanly -> see
that the target has flushed the shutdown checkpoint -> swap the state to the target.  The
target is promotable all the while, so the old leader's death in the middle is an ordinary
failover.  A step that fails brings Postgres back up where it was.
"""

from dataclasses import replace

from flightmode.decide.answer import SOON_S, answer
from flightmode.decide.permission import (
    confirmed,
    deadline_s,
    fence_actions,
    lease_s,
    silent_for_s,
    state_of,
    swap,
)
from flightmode.decide.quorum import alive
from flightmode.decide.requests import asked, planned_stop
from flightmode.model.action import Checkpoint, FinishRequest, StartPostgres
from flightmode.model.cluster import HistoryEntry, Mode, Request, RequestKind
from flightmode.model.decision import Decision
from flightmode.model.member import NO_FENCE
from flightmode.model.server import DataDirectory, Role, Run
from flightmode.model.view import JobKind, View


def drive(view: View) -> Decision | None:
    """The steps while Postgres still runs as primary."""
    request = asked(view, RequestKind.SWITCHOVER)
    if request is None:
        return None
    memory = view.memory
    if request.node == view.me.name:
        finish = FinishRequest(request, True, f"{view.me.name} leads")
        return answer(view, "switchover: done", "it leads already", finish, wake_s=SOON_S)
    if memory.task != request.id:
        refusal = _refusal(view, request)
        if refusal is not None:
            finish = FinishRequest(request, False, refusal)
            return answer(view, "switchover: refused", refusal, finish, wake_s=SOON_S)
        memory = replace(memory, task=request.id, task_stage="checkpoint", task_since_s=view.now_s)
        why = "a checkpoint first, so that the pause in writing stays short"
        checkpoint = Checkpoint(state_of(view).term)
        return answer(view, "switchover: checkpoint", why, checkpoint, memory=memory, wake_s=SOON_S)
    if memory.task_stage == "checkpoint":
        return _after_checkpoint(view, request)
    return _stopping(view, request)


def _refusal(view: View, request: Request) -> str | None:
    """Why the switchover can't be begun; None: it can."""
    state = state_of(view)
    if state.pause is not None:
        return "the cluster is paused; `flightmode resume` first"
    if state.mode is not Mode.SYNC:
        return "no standby holds every acknowledged commit now; `flightmode status` shows why"
    target = _target(view, request)
    if target not in state.sync:
        return f"{target} does not hold every acknowledged commit; only {state.sync[0]} does"
    if not alive(view, target):
        return f"{target} does not answer its replication"
    member = view.store.member(target)
    if member is None or member.run is not Run.STANDBY:
        return f"{target} is not a running standby"
    if member.fence_level == NO_FENCE:
        return f"the fence of {target} does not answer"
    if member.disk_free < view.policy.disk_floor:
        return f"the disk of {target} is nearly full"
    return None


def _target(view: View, request: Request) -> str:
    sync = state_of(view).sync
    return request.node or (sync[0] if sync else "")


def _after_checkpoint(view: View, request: Request) -> Decision | None:
    result = view.result(JobKind.CHECKPOINT)
    if request.expires_wall_s < view.wall_s:
        return _refused(view, request, "the checkpoint before it did not end in time")
    if view.job is not None or result is None or result.ended_s < view.memory.task_since_s:
        return None
    refusal = result.error or _refusal(view, request)
    if refusal is not None:
        return _refused(view, request, refusal)
    memory = replace(view.memory, task_stage="stop", task_since_s=view.now_s)
    why = f"stopping Postgres so that {_target(view, request)} can take over"
    stop = planned_stop(view)
    return answer(view, "switchover: stop", why, stop, memory=memory, wake_s=SOON_S)


def _refused(view: View, request: Request, why: str) -> Decision:
    memory = replace(view.memory, task=None, task_stage="")
    finish = FinishRequest(request, False, why)
    return answer(view, "switchover: refused", why, finish, memory=memory)


def _stopping(view: View, request: Request) -> Decision | None:
    """Postgres is still up: the stop is under way, or it was undone and the request is over."""
    result = view.result(JobKind.STOP)
    if view.job is None and result is not None and result.ended_s >= view.memory.task_since_s:
        why = result.error or "Postgres came up again here; the switchover was given up"
        memory = replace(view.memory, task=None, task_stage="")
        return answer(
            view, "switchover: failed", why, FinishRequest(request, False, why), memory=memory
        )
    why = "waiting for Postgres to stop"
    return answer(view, "switchover: stopping", why, *fence_actions(view), wake_s=SOON_S)


def stopped(view: View) -> Decision | None:
    """The steps once Postgres is down: prove, then give the term away; or start again."""
    request = asked(view, RequestKind.SWITCHOVER)
    mine = request is not None and view.memory.task == request.id
    if request is None or not mine or view.memory.task_stage != "stop":
        return None
    target, data = _target(view, request), view.server.data
    waited_s = view.now_s - view.memory.task_since_s
    if data is None or data.control_state != "shut down":
        return _undo(view, request, "Postgres did not stop cleanly")
    if target not in state_of(view).sync:
        return _undo(view, request, f"{target} dropped out while Postgres was stopping")
    member = view.store.member(target)
    if member is not None and member.run is Run.STANDBY and member.position > data.position:
        return _give_away(view, request, target)
    if waited_s > view.policy.switchover_patience_s:
        return _undo(view, request, f"{target} did not get the last of the WAL in time")
    why = f"waiting until {target} has flushed all of the WAL, up to {data.position}"
    return answer(view, "switchover: prove", why, *fence_actions(view), wake_s=SOON_S)


def _give_away(view: View, request: Request, target: str) -> Decision:
    state, data, member = state_of(view), view.server.data, view.store.member(target)
    assert data is not None
    assert member is not None
    reason = f"switchover asked for by {request.asked_by}"
    given = replace(
        state,
        term=state.term + 1,
        leader=target,
        previous=view.me.name,
        mode=Mode.SOLO,
        sync=(),
        handover=None,
        given=member.takes_up,
        reason=reason,
        since_wall_s=view.wall_s,
    )
    history = HistoryEntry(given.term, target, view.me.name, reason, view.wall_s, data.position)
    swapped = replace(swap(view, "switch over", given), history=history)
    finish = FinishRequest(request, True, f"{target} leads term {given.term}")
    why = f"{target} has flushed everything: the term goes to it"
    return answer(view, "switchover: give away", why, swapped, finish, wake_s=SOON_S)


def take_back(view: View, data: DataDirectory) -> Decision | None:
    """The target has died before it took the term up: nobody was promoted in it, nor will be.

    Its own swap and this one compare with the same revision, so one of the two wins.  Postgres
    ended cleanly here: what was acknowledged is all here, and nothing was since.
    """
    state = state_of(view)
    mine = state.given and state.previous == view.me.name and view.store.in_doubt is None
    as_left = data.control_state == "shut down" and not data.standby_signal
    able = view.fence.reachable and view.server.disk_free >= view.policy.disk_floor
    if not (mine and as_left and able) or silent_for_s(view) < lease_s(view):
        return None
    reason = f"{state.leader} did not take up the term that it was given"
    back = replace(
        state,
        term=state.term + 1,
        leader=view.me.name,
        previous=state.leader,
        given=False,
        reason=reason,
        since_wall_s=view.wall_s,
    )
    history = HistoryEntry(
        back.term, view.me.name, state.leader, reason, view.wall_s, data.position
    )
    swapped = replace(swap(view, "take back", back), history=history)
    return answer(view, "switchover: take back", reason, swapped, wake_s=SOON_S)


def _undo(view: View, request: Request, why: str) -> Decision:
    """Back to where it was: Postgres starts here again, and the request ends with the reason."""
    memory = replace(view.memory, task=None, task_stage="", crashed=False)
    finish = FinishRequest(request, False, f"{why}; Postgres was started again on {view.me.name}")
    actions: list[FinishRequest | StartPostgres] = [finish]
    end_s = deadline_s(view)
    if confirmed(view) and end_s is not None and end_s - view.now_s > 1.0:
        actions.append(StartPostgres(Role.PRIMARY, state_of(view).term, end_s, following=None))
    return answer(view, "switchover: undo", why, *actions, memory=memory, wake_s=SOON_S)
