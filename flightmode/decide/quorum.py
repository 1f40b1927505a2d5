"""The sync set: who besides the leader holds every acknowledged commit (S2).

Two things must never part the wrong way: what Postgres waits for
(synchronous_standby_names) and what the store says may be promoted (`state.sync`).
Whoever may be promoted must be waited for, so the names are set and proven BEFORE the
store records a standby, and cleared only AFTER the store has recorded its removal.
(Patroni's quorum resolver and CloudNativePG's formula R + W > N say the same for
larger sets; with one promotable standby it is this order and nothing more.)
"""

from dataclasses import replace

from flightmode.decide.answer import IDLE_S, SOON_S
from flightmode.decide.permission import (
    deadline_s,
    fence_actions,
    solo_confirmed,
    state_of,
    swap,
)
from flightmode.decide.suspicion import host_silence_s
from flightmode.model.action import Action, LiftFence, SetSyncNames
from flightmode.model.cluster import Mode
from flightmode.model.memory import Memory, Watched
from flightmode.model.server import NOT_OURS, Run
from flightmode.model.view import JobKind, View

# A standby further behind than this is not asked to be waited for: commits would stall on it.
_CAUGHT_UP_BYTES = 1 << 20
# An added standby's swap needs this much permission left, or it waits for the next renewal.
_PERMISSION_LEFT_S = 0.5
# The store answered that lately: it does not while its answers get lost.
_RENEWALS_AGO = 1.5

Step = tuple[str, tuple[Action, ...], Memory] | None
"""Why, what, and what to remember; None: the set is as it should be."""


def step(view: View) -> Step:
    """The next step towards the right sync set, on a leader whose Postgres is primary."""
    if state_of(view).mode is Mode.SYNC:
        return _keep(view)
    return _grow(view)


def _keep(view: View) -> Step:
    (holder, *_) = state_of(view).sync
    if view.server.admits_clients and view.server.sync_names != (holder,):
        return _overruled(view, holder)
    relieved = _relieved(view, holder)
    if relieved or (not alive(view, holder) and not _just_started(view)):
        removed = tuple(pair for pair in view.memory.removed if pair[0] != holder)
        memory = replace(view.memory, removed=(*removed, (holder, view.now_s)))
        solo = replace(state_of(view), mode=Mode.SOLO, sync=())
        term = state_of(view).term
        what = "is to go, and another one is ready" if relieved else "is silent"
        why = f"{holder} {what}: recording that {view.me.name} alone holds what it acknowledges"
        # What follows the swap is done only if that was confirmed: etcd may be gone at the next
        # look, and who is alone must neither be fenced (I6) nor wait for anybody.
        alone = (swap(view, "degrade", solo), LiftFence(term), SetSyncNames(term, ()))
        return why, alone, memory
    if (view.server.sync_names != (holder,) or _started_unproven(view)) and view.job is None:
        why = f"commits must wait for {holder}, and Postgres does not say so: setting it again"
        return why, (SetSyncNames(state_of(view).term, (holder,)),), view.memory
    return None


def _overruled(view: View, holder: str) -> Step:
    """Somebody else has set the names, and commits are acknowledged that the holder lacks (I2).

    What Postgres waits for is not ours to clear here: that would have to outdo whoever set it.
    """
    removed = tuple(pair for pair in view.memory.removed if pair[0] != holder)
    memory = replace(view.memory, removed=(*removed, (holder, view.now_s)))
    solo = replace(state_of(view), mode=Mode.SOLO, sync=())
    why = f"Postgres does not wait for {holder} any more: recording that {view.me.name} is alone"
    return why, (swap(view, "degrade", solo), LiftFence(state_of(view).term)), memory


def _relieved(view: View, holder: str) -> bool:
    """It is no node of flightmode.toml any more, and its place can be filled at once.

    Before that it is held on to: it may be the only other copy there is.
    """
    return holder not in view.policy.databases and _candidate(view) is not None


def _started_unproven(view: View) -> bool:
    """A start lets commits through until the checkpointer has taken up the names (syncrep.c)."""
    return not view.server.admits_clients and view.server.sync_since is None


def _grow(view: View) -> Step:
    term = state_of(view).term
    names = view.server.sync_names
    candidate = _candidate(view)
    if candidate is None:
        return _wait_for_nobody(view)
    if names != (candidate,) or view.server.sync_since is None:
        if view.job is not None or _failed_lately(view):
            return None
        return (
            f"{candidate} streams and is caught up: commits are to wait for it",
            (SetSyncNames(term, (candidate,)),),
            view.memory,
        )
    if not view.fence.reachable:
        # Nobody becomes promotable before the fence has a deadline, and it can't be told.
        return None
    if _proving(view) or not _holds_everything(view, candidate) or not _permission_left(view):
        return None
    passed_over = tuple(name for name in state_of(view).passed_over if name != candidate)
    sync = replace(state_of(view), mode=Mode.SYNC, sync=(candidate,), passed_over=passed_over)
    return (
        f"{candidate} has flushed everything since commits wait for it: it becomes promotable",
        (*fence_actions(view, adding=True), swap(view, "add", sync)),
        view.memory,
    )


def _wait_for_nobody(view: View) -> Step:
    busy = view.job is not None and not _proving(view)
    if not view.server.sync_names or busy or not solo_confirmed(view):
        return None
    if view.memory.overruled and view.server.sync_names == NOT_OURS:
        return None
    why = "nobody else holds every commit, and that is recorded: commits need not wait"
    return why, (SetSyncNames(state_of(view).term, ()),), view.memory


def alive(view: View, name: str) -> bool:
    """Whether the standby streams and spoke within `standby_silent_s`.

    When its host is silent too, less is enough: to go on alone is always safe, once recorded.
    """
    watched = _watched(view, name)
    if watched is None:
        return False
    silent_s, lost_s = view.now_s - watched.spoke_s, view.policy.standby_lost_s
    host_lost = 0 < lost_s <= host_silence_s(view, name) and silent_s >= lost_s / 2
    return silent_s < view.policy.standby_silent_s and not host_lost


def until_lost_s(view: View) -> float:
    """When to look again, so that the loss of the holder's host does not pass unseen."""
    lost_s, state = view.policy.standby_lost_s, state_of(view)
    if lost_s <= 0 or state.mode is not Mode.SYNC:
        return IDLE_S
    left_s = lost_s - host_silence_s(view, state.sync[0])
    return min(IDLE_S, max(SOON_S, left_s))


def _watched(view: View, name: str) -> Watched | None:
    return next((w for w in view.memory.watched if w.name == name), None)


def _just_started(view: View) -> bool:
    """A primary that has just come up gives its standby the time to connect again."""
    since_s = view.memory.primary_since_s
    return since_s is None or view.now_s - since_s < view.policy.standby_silent_s


def _candidate(view: View) -> str | None:
    """The standby to wait for: the one already named if it still qualifies, else the first."""
    fit = [name for name in view.policy.databases if name != view.me.name and _fit(view, name)]
    named = [name for name in fit if name in view.server.sync_names]
    return next(iter(named or fit), None)


def _fit(view: View, name: str) -> bool:
    watched, row = _watched(view, name), view.server.replica(name)
    if watched is None or row is None or not alive(view, name):
        return False
    removed_s = dict(view.memory.removed).get(name)
    since_s, stable_s = watched.since_s, view.policy.stable_for_s
    if removed_s is not None and view.now_s - removed_s < view.policy.flap_window_s:
        # It may have streamed all the while: what ended was that commits waited for it.
        since_s, stable_s = max(since_s, removed_s), view.policy.stable_after_flap_s
    if view.now_s - since_s < stable_s:
        return False
    member = view.store.member(name)
    sound = member is not None and member.run is Run.STANDBY and member.problem is None
    roomy = member is not None and member.disk_free >= view.policy.disk_floor
    return sound and roomy and view.server.position - row.flushed <= _CAUGHT_UP_BYTES


def _holds_everything(view: View, name: str) -> bool:
    row, since = view.server.replica(name), view.server.sync_since
    return (
        row is not None
        and since is not None
        and row.sync_state in ("sync", "quorum")
        and row.flushed >= since
    )


def _proving(view: View) -> bool:
    """The names are being set right now: what is seen of them is not proven yet."""
    return view.job is not None and view.job.kind == JobKind.SYNC_NAMES


def _permission_left(view: View) -> bool:
    """Whether there is time to learn what became of the swap that ends mode solo.

    From when it is sent the fence has a deadline (I8), and while its outcome is unknown nobody can
    lift that: a leader that was alone would be fenced, for a standby that was never recorded (I6).
    """
    end_s, renewed = deadline_s(view), view.renewed
    if end_s is None or renewed is None or end_s - view.now_s < _PERMISSION_LEFT_S:
        return False
    return view.now_s - renewed.sent_s <= _RENEWALS_AGO * view.policy.renew_every_s


def _failed_lately(view: View) -> bool:
    result = view.result(JobKind.SYNC_NAMES)
    return (
        result is not None
        and result.error is not None
        and view.now_s - result.ended_s < view.policy.job_retry_s
    )
