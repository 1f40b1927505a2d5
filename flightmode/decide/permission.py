"""Until when this node may let Postgres run as primary (I8, S2, S6).

Permission counts from when the last renewal that the store confirmed was *sent*:
others start their own count when they see that renewal, which is never earlier.
"""

from dataclasses import replace

from flightmode.decide.lease import leased_until_s
from flightmode.model.action import Action, ExtendFence, LiftFence, SwapState
from flightmode.model.cluster import ClusterState, Mode
from flightmode.model.view import View

# A deadline that moved by less is not worth a datagram.
_WORTH_A_DATAGRAM_S = 0.05
# An agent that ends leaves the next one a permission that is no older.
_LEFT_S = 0.2


def state_of(view: View) -> ClusterState:
    """The state, in situations that have one."""
    assert view.store.state is not None
    return view.store.state


def confirmed(view: View) -> bool:
    """No swap of ours from before can still change this state behind our back.

    Either the store confirmed a swap of ours in this term and none since is in doubt, or this
    agent saw the term begin: then no swap of an earlier life of it compares with this state.
    """
    if view.store.in_doubt is not None:
        return False
    return _renewed_now(view) or view.store.saw_term_begin


def _renewed_now(view: View) -> bool:
    return view.renewed is not None and view.renewed.term == state_of(view).term


def solo_confirmed(view: View) -> bool:
    """Mode solo is recorded, and no swap of ours that says otherwise can still arrive.

    That it was read is enough, also when the answer to the swap that recorded it was lost: whatever
    this agent sent before compares with an older revision, and what an earlier life of it sent with
    one that is older still, or `confirmed` would not hold.
    """
    return state_of(view).mode is Mode.SOLO and confirmed(view)


def deadline_s(view: View) -> float | None:
    """Up to when (boottime) Postgres may run as primary in mode sync; None: no permission yet."""
    renewed = view.renewed
    state = state_of(view)
    if renewed is None or renewed.term != state.term:
        return None
    end_s = renewed.sent_s + view.policy.ttl_s * (1 - view.policy.margin)
    leased_s = leased_until_s(state, view.leased, view.policy)
    if leased_s is not None:
        end_s = max(end_s, leased_s)
    if state.pause is not None:
        # A pause is a long permission (I7): nobody claims before it is over, and grace with it.
        end_s = max(end_s, view.now_s + state.pause.until_wall_s - view.wall_s)
    return end_s


def fence_actions(view: View, *, adding: bool = False) -> tuple[Action, ...]:
    """Bring the fence to what this term allows.

    `adding`: a swap to mode sync follows, so the deadline is set although solo is recorded.
    """
    term = state_of(view).term
    fence = view.fence
    if not fence.reachable:
        return ()
    if solo_confirmed(view) and not adding:
        return () if fence.lifted and fence.term == term else (LiftFence(term),)
    end_s = deadline_s(view)
    if end_s is None or end_s <= view.now_s:
        return ()
    if (
        fence.term == term
        and not fence.lifted
        and fence.deadline_s is not None
        and abs(end_s - fence.deadline_s) < _WORTH_A_DATAGRAM_S
    ):
        return ()
    return (ExtendFence(term, end_s),)


def renewal_due(view: View) -> bool:
    """Whether it is time to bump `state.renewal`."""
    if view.renewed is None or not _renewed_now(view):
        return True
    every_s = _LEFT_S if view.ending else view.policy.renew_every_s - 0.02
    return view.now_s - view.renewed.sent_s >= every_s


def renew(view: View) -> SwapState:
    """The renewal: nothing but a greater number (S1)."""
    return swap(view, "renew", state_of(view))


def swap(view: View, purpose: str, state: ClusterState) -> SwapState:
    """A swap of the state as seen for `state`; every one of them is a renewal too."""
    ttl_s = _ttl_to_record_s(view) if state.leader == view.me.name else state.ttl_s
    after = replace(state, renewal=state_of(view).renewal + 1, ttl_s=ttl_s)
    return SwapState(purpose, view.store.state_revision, after)


def _ttl_to_record_s(view: View) -> float:
    """Our own; or what is left of a longer permission that an earlier life of this agent had.

    The fence is told of a shorter one only after this swap; a pause has its own rule.
    """
    state, fence = state_of(view), view.fence
    if not fence.reachable:
        return max(view.policy.ttl_s, state.ttl_s)
    if fence.lifted or fence.deadline_s is None or state.pause is not None:
        return view.policy.ttl_s
    # A new term has a new leader, whose fence stands for none of its own before.
    return max(view.policy.ttl_s, fence.deadline_s - view.now_s)


def lease_s(view: View) -> float:
    """For how long the leader has to be silent: nodes may go by two `timing.ttl_s` for a while."""
    return max(view.policy.ttl_s, state_of(view).ttl_s)


def silent_for_s(view: View) -> float:
    """How long the state has not changed, by our own clock."""
    return view.now_s - view.store.state_changed_s
