"""What people ask for, other than a change of leader."""

from dataclasses import replace

from flightmode.decide.answer import SOON_S, answer
from flightmode.decide.permission import (
    deadline_s,
    fence_actions,
    renew,
    solo_confirmed,
    state_of,
    swap,
)
from flightmode.model.action import ApplySettings, FinishRequest, StopPostgres
from flightmode.model.cluster import Pause, Request, RequestKind
from flightmode.model.decision import Decision
from flightmode.model.server import Run
from flightmode.model.view import JobKind, View

# So much permission is to be left when a pause ends.
_LEFT_S = 1.0


def wanted(view: View, kind: RequestKind) -> Request | None:
    """The request of that kind that concerns this node or everybody, expired or not."""
    for request in view.store.requests:
        if request.kind is kind and request.node in (None, view.me.name):
            return request
    return None


def asked(view: View, kind: RequestKind) -> Request | None:
    """The request of that kind, whichever node it names."""
    return next((r for r in view.store.requests if r.kind is kind), None)


def planned_stop(view: View) -> StopPostgres:
    """In peace (S5): a primary's clients have a moment for what is under way."""
    settle_s = view.policy.settle_s if view.server.run is Run.PRIMARY else 0.0
    patience_s = view.policy.stop_patience_s
    return StopPostgres(view.memory.term, fast=True, patience_s=patience_s, settle_s=settle_s)


def by_leader(view: View) -> Decision | None:
    """Pauses, recorded in the state so that a claim cannot overlook them (I7); and refusals."""
    return _expired(view) or _pause(view) or _resume(view) or _refused(view)


def _refused(view: View) -> Decision | None:
    """What can't be done to a cluster whose leader lives, or to the leader itself."""
    forced = asked(view, RequestKind.FAILOVER)
    if forced is not None and view.server.run is Run.PRIMARY:
        ours = forced.node == view.me.name
        why = f"{view.me.name} leads and serves" + ("" if ours else "; use `flightmode switchover`")
        finish = FinishRequest(forced, ours, why)
        return answer(view, "request: refused", why, finish, wake_s=SOON_S)
    reinit = wanted(view, RequestKind.REINIT)
    if reinit is not None and reinit.node == view.me.name:
        why = f"{view.me.name} leads; use `flightmode switchover` first"
        finish = FinishRequest(reinit, False, why)
        return answer(view, "request: refused", why, finish, wake_s=SOON_S)
    return None


def _expired(view: View) -> Decision | None:
    for request in view.store.requests:
        if request.id != view.memory.task and request.expires_wall_s < view.wall_s:
            why = f"the {request.kind} asked for by {request.asked_by} has expired"
            finish = FinishRequest(request, False, "expired before it could be carried out")
            return answer(view, "leading: expired request", why, finish, wake_s=SOON_S)
    return None


def _pause(view: View) -> Decision | None:
    request = asked(view, RequestKind.PAUSE)
    if request is None:
        return None
    if request.until_wall_s is None or request.until_wall_s <= view.wall_s:
        finish = FinishRequest(request, False, "the pause would be over already")
        return answer(view, "leading: pause", "a pause without a future end", finish)
    pause = Pause(request.until_wall_s, request.asked_by)
    finish = FinishRequest(request, True, "no change of role and no fencing until then")
    if state_of(view).pause == pause:
        return answer(view, "leading: pause", "the pause is recorded", finish, wake_s=SOON_S)
    paused = swap(view, "pause", replace(state_of(view), pause=pause))
    why = f"{request.asked_by} asked for a pause"
    return answer(view, "leading: pause", why, paused, wake_s=SOON_S)


def _resume(view: View) -> Decision | None:
    request, pause = asked(view, RequestKind.RESUME), state_of(view).pause
    if pause is None:
        if request is None:
            return None
        finish = FinishRequest(request, True, "the cluster is not paused any more")
        return answer(view, "leading: resume", "not paused (any more)", finish, wake_s=SOON_S)
    if request is None and view.wall_s < pause.until_wall_s:
        return None
    if request is not None and view.wall_s < pause.until_wall_s and _keeps_its_deadline(view):
        return None
    why = "the pause is over" if request is None else f"{request.asked_by} ended the pause"
    return _ended(view, why)


def _keeps_its_deadline(view: View) -> bool:
    """A fence that does not answer can't be told, and goes by the pause's end until it is (I8)."""
    down = view.server.run in (Run.DYING, Run.STOPPED, Run.ABSENT)
    return not view.fence.reachable and not down and not solo_confirmed(view)


def _ended(view: View, why: str) -> Decision:
    """The long deadline ends BEFORE the swap: after it others may claim and we may be dead (I8)."""
    without = replace(state_of(view), pause=None)
    after = replace(view, store=replace(view.store, state=without))
    end_s = deadline_s(after)
    if not solo_confirmed(view) and (end_s is None or end_s - view.now_s < _LEFT_S):
        return answer(view, "leading: resume", f"{why}; renewing first", renew(view), wake_s=SOON_S)
    actions = (*fence_actions(after), swap(view, "resume", without))
    return answer(view, "leading: resume", why, *actions, wake_s=SOON_S)


def own_task(view: View) -> Decision | None:
    """A reload or restart of this node's running Postgres."""
    return _reload(view) or _restart(view)


def _reload(view: View) -> Decision | None:
    """Ended well only when PostgreSQL has taken the settings."""
    request, restart = wanted(view, RequestKind.RELOAD), wanted(view, RequestKind.RESTART)
    restarts = restart is not None and restart.id == view.memory.task
    if request is None or request.node is None or restarts or view.job is not None:
        return None
    result = view.result(JobKind.SETTINGS)
    begun = view.memory.task == request.id
    if not begun or result is None or result.ended_s < view.memory.task_since_s:
        memory = replace(
            view.memory, task=request.id, task_stage="settings", task_since_s=view.now_s
        )
        why, apply = "rendering the settings again", ApplySettings(view.memory.term)
        return answer(view, "request: reload", why, apply, memory=memory, wake_s=SOON_S)
    memory = replace(view.memory, task=None, task_stage="")
    why = result.error or "settings rendered and reloaded"
    finish = FinishRequest(request, result.error is None, why)
    return answer(view, "request: reloaded", why, finish, memory=memory)


def _restart(view: View) -> Decision | None:
    request = wanted(view, RequestKind.RESTART)
    if request is None or request.node is None:
        return None
    if view.job is not None and view.job.kind == JobKind.SETTINGS:
        # At most one job runs, and that one ends by itself.
        return None
    if view.memory.task != request.id:
        memory = replace(view.memory, task=request.id, task_stage="stop", task_since_s=view.now_s)
        why = f"{request.asked_by} asked for a restart of Postgres here"
        return answer(
            view, "request: restart", why, planned_stop(view), memory=memory, wake_s=SOON_S
        )
    if view.memory.task_stage == "stop" and view.job is None and _answers(view):
        memory = replace(view.memory, task=None, task_stage="")
        result = view.result(JobKind.STOP)
        failed = None if result is None else result.error
        finish = FinishRequest(request, failed is None, failed or "Postgres was restarted")
        why = failed or "Postgres is up again after the restart that was asked for"
        return answer(view, "request: restarted", why, finish, memory=memory)
    return None


def _answers(view: View) -> bool:
    """Postgres answers again, and the stop that the task began is behind us."""
    return view.server.run in (Run.PRIMARY, Run.STANDBY) and _stop_ended(view)


def _stop_ended(view: View) -> bool:
    result = view.result(JobKind.STOP)
    return result is not None and result.ended_s >= view.memory.task_since_s
