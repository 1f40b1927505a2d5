"""The term is ours and Postgres is still a standby: it is promoted, or the term goes back.

A term that cannot be used is an outage for everybody, so whoever cannot promote gives it to the one
who led before, as long as it is certain that nobody was or will be promoted in it (S3.6, S7).
"""

from dataclasses import replace

from flightmode.decide.answer import SOON_S, answer
from flightmode.decide.members import fresh
from flightmode.decide.permission import (
    confirmed,
    fence_actions,
    renew,
    solo_confirmed,
    state_of,
    swap,
)
from flightmode.decide.superseded import outdated
from flightmode.model.action import Promote, SetSyncNames, StopPostgres, SwapState
from flightmode.model.cluster import Mode
from flightmode.model.decision import Decision
from flightmode.model.member import NO_FENCE
from flightmode.model.memory import Memory
from flightmode.model.server import Run
from flightmode.model.view import View

# So many times the patience with a promotion.
_STANDS_STILL = 4


def taking_over(view: View) -> Decision:
    """The term is ours and Postgres still in recovery: promote it (S3.5)."""
    state = state_of(view)
    if not confirmed(view):
        return answer(view, "leading: confirm", "confirming the term", renew(view), wake_s=SOON_S)
    if not view.fence.reachable:
        return _unguarded(view)
    since_s = view.memory.promoting_since_s
    if since_s is not None:
        return _promoting(view, since_s)
    older = outdated(view)
    if older is not None:
        return older
    if view.server.sync_names and solo_confirmed(view):
        why = "the new primary must not wait for the old one: clearing what commits wait for"
        return answer(view, "leading: promote", why, SetSyncNames(state.term, ()), wake_s=SOON_S)
    memory = replace(view.memory, promoting_since_s=view.now_s, promote_asked=True)
    taken = (take_up(view),) if state.given else ()
    actions = (*fence_actions(view), *taken, Promote(state.term))
    why = f"term {state.term} is ours ({state.reason}): promoting Postgres"
    return answer(view, "leading: promote", why, *actions, memory=memory, wake_s=SOON_S)


def take_up(view: View) -> SwapState:
    """S7: from here on nobody takes the term back.  BEFORE anything is promoted in it."""
    return swap(view, "take up", replace(state_of(view), given=False))


def _unguarded(view: View) -> Decision:
    """S4: nothing is promoted that no fence could stop; who led before may have the term back.

    Postgres can't be stopped here, so it must be certain that it will not be promoted late.
    """
    since_s, previous = view.memory.unguarded_since_s, _handback_target(view)
    waited_s = 0.0 if since_s is None else view.now_s - since_s
    left_s = view.policy.promote_patience_s - waited_s
    why = "the fence does not answer, and without it Postgres is not promoted"
    if left_s > 0:
        return answer(view, "leading: unguarded", why, wake_s=0.1)
    if previous is None or not _never_asked(view) or state_of(view).pause is not None:
        problem = f"FM603: the fence has not answered for {waited_s:.0f} s: nothing is promoted"
        return answer(view, "leading: unguarded", why, problem=problem)
    return _hand_back(view, previous, f"{why}: {previous} gets the term back", view.memory)


def _never_asked(view: View) -> bool:
    """Neither this agent nor an earlier life of it has asked Postgres to promote in this term."""
    first_life = view.store.saw_term_begin and not view.memory.promote_asked
    return first_life or state_of(view).given


def _promoting(view: View, since_s: float) -> Decision:
    waited_s = view.now_s - since_s
    state = state_of(view)
    if waited_s < view.policy.promote_patience_s:
        why = f"waiting for the promotion to end ({waited_s:.1f} s)"
        return answer(view, "leading: promoting", why, *fence_actions(view), wake_s=SOON_S)
    stop = StopPostgres(state.term, fast=False, patience_s=0)
    if _handback_target(view) is None and _stands_still(view):
        why = "the promotion stands still and nobody else could lead: beginning Postgres anew"
        return answer(view, "leading: promote anew", why, stop, wake_s=0.1)
    if _handback_target(view) is None:
        memory = replace(view.memory, promoting_since_s=None)
        why = "the promotion takes too long and nobody else could lead: asking once more"
        problem = f"FM603: the promotion is not done after {waited_s:.0f} s"
        return answer(view, "leading: promote again", why, memory=memory, problem=problem)
    why = "the promotion takes too long: stopping, so that the old leader can have the term back"
    return answer(view, "leading: give up", why, stop, wake_s=0.1)


def _stands_still(view: View) -> bool:
    """For far longer than a slow disk takes, and not because there is much to replay."""
    since_s = view.memory.standing_since_s
    return (
        since_s is not None
        and view.now_s - since_s >= _STANDS_STILL * view.policy.promote_patience_s
    )


def promotion_ended(view: View) -> Decision:
    """A promotion was begun here and Postgres is down now."""
    data, previous = view.server.data, _handback_target(view)
    memory: Memory = replace(view.memory, promoting_since_s=None)
    if data is not None and data.standby_signal and previous is not None:
        why = f"Postgres was never promoted here: {previous} gets the term back"
        return _hand_back(view, previous, why, memory)
    return answer(
        view, "leading: start over", "starting Postgres again", memory=memory, wake_s=SOON_S
    )


def _handback_target(view: View) -> str | None:
    """The old leader, if it is up and its data are as it left them (S3.6)."""
    previous = state_of(view).previous
    member = view.store.member(previous) if previous else None
    if member is None or not fresh(view, member.name):
        return None
    sound = member.run in (Run.STOPPED, Run.STANDBY) and member.job is None
    able = member.problem is None and member.fence_level != NO_FENCE
    return previous if sound and able else None


def _hand_back(view: View, previous: str, why: str, memory: Memory) -> Decision:
    """Only when nobody was or will be promoted in this term (S3.6)."""
    state = replace(
        state_of(view),
        term=state_of(view).term + 1,
        leader=previous,
        previous=view.me.name,
        mode=Mode.SOLO,
        sync=(),
        handover=None,
        given=False,
        reason=f"{view.me.name} could not be promoted",
        passed_over=tuple(name for name in state_of(view).passed_over if name != previous),
        since_wall_s=view.wall_s,
    )
    return answer(view, "leading: hand back", why, swap(view, "hand back", state), memory=memory)
