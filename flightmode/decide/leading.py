"""The state names this node: it leads, so its Postgres has to be the primary of this term.

Each function answers one state of the local Postgres.  Renewals go on through all of
them; whatever else happens in a look comes after the renewal is safe.
"""

from dataclasses import replace

from flightmode.decide import switchover
from flightmode.decide.answer import SOON_S, answer, before, died_starting, recently_failed
from flightmode.decide.giving_way import gives_way
from flightmode.decide.members import fresh
from flightmode.decide.permission import (
    confirmed,
    deadline_s,
    fence_actions,
    renew,
    renewal_due,
    solo_confirmed,
    state_of,
    swap,
)
from flightmode.decide.promotion import promotion_ended, take_up, taking_over
from flightmode.decide.quorum import step, until_lost_s
from flightmode.decide.requests import by_leader, own_task
from flightmode.decide.superseded import outdated
from flightmode.model.action import (
    Admit,
    ExtendFence,
    KillRemnants,
    LiftFence,
    Prepare,
    Promote,
    StartPostgres,
    StopPostgres,
    SwapState,
)
from flightmode.model.cluster import Handover, Mode
from flightmode.model.decision import Decision
from flightmode.model.member import NO_FENCE
from flightmode.model.server import DataDirectory, Role, Run
from flightmode.model.view import JobKind, View

_UP = (Run.PRIMARY, Run.STANDBY, Run.STARTING)
# Roles and slots of a new primary can wait for so long.
_CLIENTS_FIRST_S = 0.7
# What SIGKILL has not ended by then waits for its disk.
_DYING_S = 1.0


def leading(view: View) -> Decision:
    """What the leader does."""
    if view.store.in_doubt is not None:
        why = "a change of the state has an unknown outcome: settling it before anything else"
        return answer(view, "leading: settle", why, renew(view), wake_s=0.1)
    urgent = by_leader(view)
    way = gives_way(view, wrong_data(view, view.server.data))
    if urgent is None and way is not None and _successor(view) is None:
        return way
    decision = _by_run(view) if urgent is None else _fenced(view, urgent)
    if any(isinstance(action, SwapState) for action in decision.actions):
        return decision
    if state_of(view).given:
        # Its silence tells who gave it the term that it can't use it (S7).
        return decision
    if renewal_due(view):
        if any(isinstance(action, Promote) for action in decision.actions):
            # Nobody else can claim a new leader's term: the waiting clients come first.
            return replace(decision, actions=(*decision.actions, renew(view)))
        return before(decision, renew(view))
    wake_s = min(decision.wake_s, _until_renewal_s(view), until_lost_s(view))
    return decision if wake_s == decision.wake_s else replace(decision, wake_s=wake_s)


def _fenced(view: View, urgent: Decision) -> Decision:
    """With what the term allows, unless it sets the fence by itself: a pause that ends does."""
    sets = any(isinstance(action, ExtendFence | LiftFence) for action in urgent.actions)
    return urgent if sets else before(urgent, *fence_actions(view))


def _until_renewal_s(view: View) -> float:
    if view.renewed is None:
        return SOON_S
    due_s = view.renewed.sent_s + view.policy.renew_every_s
    return max(SOON_S, due_s - view.now_s)


def _by_run(view: View) -> Decision:
    if state_of(view).handover is not None and view.server.run in _UP:
        withdraw = swap(view, "withdraw", replace(state_of(view), handover=None))
        why = "Postgres runs here, so the offered handover must not stand"
        return answer(view, "leading: withdraw", why, withdraw, wake_s=SOON_S)
    hung = _hung(view)
    if hung is not None:
        return hung
    match view.server.run:
        case Run.PRIMARY:
            return _overruled(view, _serving(view))
        case Run.STANDBY:
            return taking_over(view)
        case Run.STARTING:
            return _starting(view)
        case Run.SILENT:
            problem = "FM601: Postgres runs here and does not answer"
            why = "Postgres does not answer; the fence stops it if we lose our permission"
            return answer(view, "leading: silent", why, *fence_actions(view), problem=problem)
        case Run.DYING if not view.fence.reachable:
            return _without_fence(view)
        case Run.DYING:
            return _remnants(view)
        case Run.STOPPED:
            return _stopped(view)
        case Run.ABSENT:
            return _no_data(view)


def _hung(view: View) -> Decision | None:
    """S10: it takes no new connection, or its disk no write, and another node could serve.

    SIGKILL at once: a stopped postmaster would not hear anything less.  What follows is what
    follows the death of a Postgres, after some crashes a restart in place; whoever could not take
    over is no reason to end it.
    """
    failing_s, primary_s = view.probe.failing_since_s, view.memory.primary_since_s
    limit_s = view.policy.hang_after_s
    if failing_s is None or limit_s <= 0:
        return None
    # A probe of the one before says nothing of a Postgres that was started since.
    since_s = failing_s if primary_s is None else max(failing_s, primary_s)
    if view.now_s - since_s < limit_s:
        return None
    if view.server.run not in (Run.PRIMARY, Run.SILENT) or state_of(view).pause is not None:
        return None
    successor = _successor(view)
    if successor is None or _begins_or_ends(view):
        return None
    why = f"Postgres hangs ({view.probe.why}) and {successor} could serve at once: ending it"
    return answer(view, "leading: hung", why, KillRemnants(state_of(view).term), wake_s=SOON_S)


def _begins_or_ends(view: View) -> bool:
    """A start or a stop is under way.  Any other job of a leader needs its Postgres, and so hangs
    with it: it must neither keep that alive nor be waited for."""
    return view.job is not None and view.job.kind in (JobKind.START, JobKind.STOP)


def _remnants(view: View) -> Decision:
    """A process that waits for a stalled disk dies when that answers, and does nothing before.

    Whether the guard against a loop of crashes holds does not matter: nothing can be restarted in
    place meanwhile, and no query stalls a disk.
    """
    state, since_s, successor = state_of(view), view.memory.dying_since_s, _successor(view)
    kill = KillRemnants(state.term)
    stuck = since_s is not None and view.now_s - since_s >= _DYING_S and view.memory.crashed
    free = state.handover is None and state.pause is None
    if stuck and free and successor is not None:
        return before(_offer(view, successor), kill)
    why = "the postmaster is gone and some of its children are not: ending them"
    return answer(view, "leading: remnants", why, kill, wake_s=SOON_S)


# ------------------------------------------------------------------ Postgres is primary


def _serving(view: View) -> Decision:
    if not confirmed(view):
        return answer(view, "leading: confirm", "confirming the term", renew(view), wake_s=SOON_S)
    if state_of(view).given:
        why = "a primary runs here in the term that was given: taking it up"
        return answer(view, "leading: take up", why, take_up(view), wake_s=SOON_S)
    fence = fence_actions(view)
    task = switchover.drive(view) or own_task(view)
    if task is not None:
        return before(task, *fence)
    change = step(view)
    if change is not None:
        why, actions, memory = change
        if any(isinstance(action, SwapState) for action in actions):
            # An added standby needs the deadline that these actions set, not the lifted one.
            fence = tuple(action for action in fence if not isinstance(action, LiftFence))
        return answer(
            view, "leading: sync set", why, *fence, *actions, memory=memory, wake_s=SOON_S
        )
    if not view.server.admits_clients:
        return before(_admitting(view), *fence)
    if _unprepared(view) and view.job is None and not recently_failed(view, JobKind.PREPARE):
        why = "making sure of our roles and of a slot for each standby"
        prepare = Prepare(state_of(view).term, _slots(view))
        return answer(view, "leading: prepare", why, *fence, prepare)
    return answer(view, "leading: serve", _how_it_serves(view), *fence)


def _overruled(view: View, decision: Decision) -> Decision:
    """What only a person can take back keeps commits from waiting for a standby (I2)."""
    if decision.problem is not None or not view.memory.overruled:
        return decision
    problem = "FM631: synchronous_standby_names is set by somebody else, so nobody can take over"
    return replace(decision, problem=problem)


def _how_it_serves(view: View) -> str:
    state = state_of(view)
    if state.mode is Mode.SYNC:
        return f"primary of term {state.term}; every commit waits for {', '.join(state.sync)}"
    return f"primary of term {state.term}, alone: no standby holds every commit"


def _admitting(view: View) -> Decision:
    """S8: what crash recovery made visible must be held as recorded before clients see it.

    And what they commit then has to wait: that is proven anew in each life of Postgres.
    """
    state = state_of(view)
    admit = Admit(state.term)
    if solo_confirmed(view):
        return answer(view, "leading: admit", "clients may come in", admit, wake_s=SOON_S)
    row = view.server.replica(state.sync[0]) if state.sync else None
    from_ = view.memory.admit_from
    waits = view.server.sync_names == state.sync and view.server.sync_since is not None
    if waits and row is not None and row.streaming and from_ is not None and row.flushed >= from_:
        why = f"{row.name} holds all that recovery brought back: clients may come in"
        return answer(view, "leading: admit", why, admit, wake_s=SOON_S)
    why = "clients wait until a standby holds what recovery brought back, or its loss is recorded"
    return answer(view, "leading: closed", why, wake_s=0.05)


def _slots(view: View) -> tuple[str, ...]:
    return tuple(name for name in view.policy.databases if name != view.me.name)


def _unprepared(view: View) -> bool:
    """Not in the first moments: those belong to the clients that come back."""
    since_s = view.memory.primary_since_s
    if since_s is None or view.now_s - since_s < _CLIENTS_FIRST_S:
        return False
    have = {slot.name for slot in view.server.slots}
    return not view.server.prepared or not have.issuperset(_slots(view))


# ------------------------------------------------------------------ Postgres is starting


def _starting(view: View) -> Decision:
    since_s = view.memory.starting_since_s
    waited_s = 0.0 if since_s is None else view.now_s - since_s
    fence = fence_actions(view)
    if waited_s > view.policy.start_patience_s and _successor(view) is not None:
        memory = replace(view.memory, crashed=True, starting_since_s=None)
        why = f"recovery has taken {waited_s:.0f} s and {_successor(view)} could serve at once"
        stop = StopPostgres(state_of(view).term, fast=False, patience_s=0)
        return answer(view, "leading: too slow", why, *fence, stop, memory=memory)
    why = f"waiting for Postgres to come up ({waited_s:.1f} s)"
    return answer(view, "leading: starting", why, *fence, wake_s=0.05)


# ------------------------------------------------------------------ Postgres is stopped


def _stopped(view: View) -> Decision:
    state = state_of(view)
    if _begins_or_ends(view):
        return _until_job_ends(view)
    if state.pause is not None and view.memory.fenced and state.handover is None:
        # A clock was set, say.  I7 keeps roles as they are, and nobody else may serve meanwhile.
        return _start_in_place(view) if view.job is None else _until_job_ends(view)
    if state.pause is not None:
        problem = "FM604: Postgres is down here and the cluster is paused"
        why = "paused: nothing is started and nobody takes over until `flightmode resume`"
        return answer(view, "leading: paused", why, problem=problem)
    if view.memory.promoting_since_s is not None:
        return promotion_ended(view)
    switching = switchover.stopped(view)
    if switching is not None:
        return switching
    if state.handover is not None:
        return _offered(view, state.handover)
    successor = _successor(view)
    died = view.memory.crashed and not _own_restart(view) and not _crash_looping(view)
    if successor is not None and died:
        return _offer(view, successor)
    if successor is not None and _cannot_start(view) is not None:
        return _offer(view, successor, "does not start")
    return _start_in_place(view) if view.job is None else _until_job_ends(view)


def _until_job_ends(view: View) -> Decision:
    assert view.job is not None
    why = f"waiting for the job: {view.job.kind}"
    return answer(view, "leading: job", why, *fence_actions(view), wake_s=SOON_S)


def _without_fence(view: View) -> Decision:
    """The fence is gone and Postgres with it: nothing can be started or ended here (I9).

    Whether the guard against a loop of crashes holds does not matter: no query kills a fence.
    """
    state, successor = state_of(view), _successor(view)
    if state.pause is None and state.handover is not None:
        return _offered(view, state.handover)
    if state.pause is None and successor is not None:
        return _offer(view, successor)
    why = "the fence does not answer, and without it Postgres cannot be started"
    return answer(view, "leading: no fence", why, wake_s=0.1)


def _no_data(view: View) -> Decision:
    """A leader that only renews would keep the one who has the data from leading (I9)."""
    state, successor = state_of(view), _successor(view)
    if state.pause is None and state.handover is not None:
        return _offered(view, state.handover)
    if state.pause is None and successor is not None:
        return _offer(view, successor)
    problem = "FM602: this node leads and its data directory is gone"
    why = "the data of the leader is missing; a person has to decide"
    return answer(view, "leading: no data", why, problem=problem)


def _cannot_start(view: View) -> str | None:
    """Why Postgres can't be started here, at least for now; None: it can."""
    ended = died_starting(view) if view.memory.starting_since_s is not None else None
    return wrong_data(view, view.server.data) or recently_failed(view, JobKind.START) or ended


def _own_restart(view: View) -> bool:
    return view.memory.task is not None and view.memory.task_stage == "stop"


def _successor(view: View) -> str | None:
    """The promotable standby that is up, if there is one."""
    for name in state_of(view).sync:
        member = view.store.member(name)
        if member is None or not fresh(view, name):
            continue
        roomy = member.disk_free >= view.policy.disk_floor
        able = member.job is None and member.fence_level != NO_FENCE
        if member.run is Run.STANDBY and able and roomy:
            return name
    return None


def _crash_looping(view: View) -> bool:
    """S10: a query that kills Postgres will kill the next one too."""
    since_s = view.wall_s - view.policy.crash_window_s
    recent = [at_s for at_s in state_of(view).crashes_wall_s if at_s > since_s]
    return len(recent) >= view.policy.crashes_max


def _offer(view: View, successor: str, what: str = "died") -> Decision:
    state = state_of(view)
    crashes = (*state.crashes_wall_s, view.wall_s)[-view.policy.crashes_max - 1 :]
    handover = Handover(successor, f"Postgres on {view.me.name} {what}")
    offer = swap(view, "hand over", replace(state, handover=handover, crashes_wall_s=crashes))
    memory = replace(view.memory, offered_since_s=view.now_s)
    why = f"Postgres {what} here and {successor} holds every acknowledged commit: handing over"
    return answer(view, "leading: hand over", why, offer, memory=memory, wake_s=0.1)


def _offered(view: View, handover: Handover) -> Decision:
    since_s = view.memory.offered_since_s
    if since_s is None:
        memory = replace(view.memory, offered_since_s=view.now_s)
        why = f"a handover to {handover.to} stands: waiting for it"
        return answer(view, "leading: offered", why, memory=memory, wake_s=0.1)
    waited_s = view.now_s - since_s
    if waited_s < view.policy.handover_patience_s:
        why = f"waiting for {handover.to} to take over ({waited_s:.1f} s)"
        return answer(view, "leading: offered", why, wake_s=0.1)
    memory = replace(view.memory, offered_since_s=None, crashed=False)
    withdraw = swap(view, "withdraw", replace(state_of(view), handover=None))
    why = f"{handover.to} did not take over in {waited_s:.1f} s: starting here again"
    return answer(view, "leading: withdraw", why, withdraw, memory=memory, wake_s=SOON_S)


def _start_in_place(view: View) -> Decision:
    state, data = state_of(view), view.server.data
    wrong = wrong_data(view, data)
    if wrong is not None:
        why = "this node leads and cannot use its own data directory"
        return answer(view, "leading: unusable data", why, problem=wrong)
    assert data is not None
    failed = _cannot_start(view)
    if failed is not None:
        why = "Postgres did not start; trying again shortly"
        return answer(view, "leading: start failed", why, problem=failed)
    older = outdated(view)
    if older is not None:
        return older
    role = Role.PRIMARY if data.was_primary else Role.STANDBY
    end_s = None if solo_confirmed(view) else deadline_s(view)
    lacking = not solo_confirmed(view) and (end_s is None or end_s - view.now_s < 1.0)
    if not confirmed(view) or lacking:
        return answer(view, "leading: confirm", "confirming the term", renew(view), wake_s=SOON_S)
    if state.given and role is Role.PRIMARY:
        why = "the data here are a primary's, in the term that was given: taking it up"
        return answer(view, "leading: take up", why, take_up(view), wake_s=SOON_S)
    start = StartPostgres(role, state.term, end_s, following=None)
    memory = replace(view.memory, crashed=False, starting_since_s=view.now_s)
    why = f"this node leads term {state.term}: starting Postgres"
    return answer(view, "leading: start", why, start, memory=memory, wake_s=0.05)


def wrong_data(view: View, data: DataDirectory | None) -> str | None:
    """Why this data directory must not be used here; None: it may."""
    state = state_of(view)
    if data is None:
        return "FM605: the data directory cannot be read"
    if data.system_identifier != state.system_identifier:
        return (
            f"FM606: the data directory belongs to another cluster (system identifier "
            f"{data.system_identifier}, the cluster's is {state.system_identifier})"
        )
    if data.pg_major != view.policy.pg_major:
        return (
            f"FM607: the data directory is of Postgres {data.pg_major}, "
            f"flightmode.toml says {view.policy.pg_major}"
        )
    if data.unfinished is not None:
        return f"FM608: a {data.unfinished} was begun here and not finished"
    return None


__all__ = ["leading", "wrong_data"]
