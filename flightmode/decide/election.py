"""Whether this standby takes the lead, and in which order (S3).

Why -> preconditions -> detach, verified -> one compare-and-swap.  Detaching is what
makes the old primary unable to acknowledge anything more (I3): it waits for this node,
and this node no longer listens.  Everything before the swap is undone by following
again; after the swap the term is ours, or somebody changed the state first and nothing
was lost.
"""

from dataclasses import replace

from flightmode.decide.answer import SOON_S, answer
from flightmode.decide.namesake import namesake
from flightmode.decide.permission import lease_s, silent_for_s, state_of, swap
from flightmode.decide.requests import wanted
from flightmode.decide.superseded import newer_elsewhere
from flightmode.decide.suspicion import second_observer, silence_s, suspects
from flightmode.model.action import Detach, FinishRequest, SwapState
from flightmode.model.cluster import HistoryEntry, Mode, Request, RequestKind
from flightmode.model.decision import Decision
from flightmode.model.member import NodeKind
from flightmode.model.server import Run
from flightmode.model.view import View


def election(view: View) -> Decision | None:
    """The next step of a claim; None: this node has no reason, or no right, to claim."""
    forced = _forced(view)
    reason = _reason(view) if forced is None else _forced_reason(view, forced)
    if reason is None or not _able(view):
        return None
    if forced is None and newer_elsewhere(view) is not None:
        return None
    if view.server.following is not None or view.server.receiver is not None:
        why = f"{reason}: first making sure that nothing more is acknowledged through this node"
        return answer(view, "following: detach", why, Detach(view.memory.term), wake_s=SOON_S)
    why = f"{reason}; detached at {view.server.position}: claiming the lead"
    actions: tuple[SwapState | FinishRequest, ...] = (_claim(view, reason, forced),)
    if forced is not None:
        actions = (*actions, FinishRequest(forced, True, f"{view.me.name} leads now"))
    return answer(view, "following: claim", why, *actions, wake_s=SOON_S)


def paused(view: View) -> bool:
    """Others honour a pause longer than it lasts, because wall clocks differ (I7)."""
    pause = state_of(view).pause
    return pause is not None and view.wall_s < pause.until_wall_s + view.policy.pause_grace_s


def promised(view: View) -> bool:
    """S6: this node told the leader that it would not claim yet."""
    return view.now_s < view.granted_until_s


def _reason(view: View) -> str | None:
    """S3.1; only for a node that the state calls promotable (I5)."""
    state = state_of(view)
    if state.mode is not Mode.SYNC or view.me.name not in state.sync or paused(view):
        return None
    if state.handover is not None and state.handover.to == view.me.name:
        return state.handover.why
    if promised(view):
        return None
    if silent_for_s(view) >= lease_s(view):
        return f"{state.leader} has been silent for {silent_for_s(view):.1f} s"
    return _lost(view)


def _lost(view: View) -> str | None:
    """The fast path: two nodes have lost every sign of life of the leader's host.

    It only saves the wait for the ttl; that the old primary acknowledges nothing more rests on
    the detach and the swap, as on the slow path.
    """
    other = second_observer(view)
    if suspects(view) is None or other is None:
        return None
    leader, me = state_of(view).leader, view.me.name
    return f"{leader} is lost: {me} and {other} have heard nothing of it for {_silence(view)}"


def _silence(view: View) -> str:
    return f"{silence_s(view) or 0.0:.1f} s"


def _able(view: View) -> bool:
    """S3.2: what must hold of this node."""
    state, data = state_of(view), view.server.data
    ours = data is None or data.system_identifier == state.system_identifier
    return (
        view.server.run is Run.STANDBY
        # Without its fence nothing is promoted here, and nobody could take the term back (S4).
        and view.fence.reachable
        # What was acknowledged in this name may be on the other machine (I2).
        and namesake(view) is None
        and view.job is None
        and ours
        and view.memory.term == state.term
        and view.server.disk_free >= view.policy.disk_floor
    )


def _claim(view: View, reason: str, forced: Request | None) -> SwapState:
    state = state_of(view)
    passed_over = {*state.passed_over}
    if forced is not None:
        # A third node may hold more of what the leader acknowledged than this one.
        passed_over |= {state.leader, *view.policy.databases, *_that_have_published(view)}
    claimed = replace(
        state,
        term=state.term + 1,
        leader=view.me.name,
        previous=state.leader,
        mode=Mode.SOLO,
        sync=(),
        handover=None,
        given=False,
        reason=reason,
        since_wall_s=view.wall_s,
        passed_over=tuple(sorted(passed_over - {view.me.name})),
    )
    position = view.server.position
    history = HistoryEntry(claimed.term, view.me.name, state.leader, reason, view.wall_s, position)
    return replace(swap(view, "claim", claimed), history=history)


def _that_have_published(view: View) -> set[str]:
    """Database nodes, also those that are not in this node's flightmode.toml.

    In an exchange of machines that lacks who makes room, or who has only just come, and both hold
    data (I10).  However old the record is: who is away may be the one that holds more.
    """
    told = (seen.member for seen in view.store.members)
    return {member.name for member in told if member.kind is NodeKind.DATABASE}


def forced_now(view: View) -> str | None:
    """Why this node claims although acknowledged commits may be missing here; None: it does not."""
    forced = _forced(view)
    return None if forced is None else _forced_reason(view, forced)


def _forced(view: View) -> Request | None:
    """A person accepted a loss and named this node."""
    request = wanted(view, RequestKind.FAILOVER)
    if request is None or request.node != view.me.name or request.expires_wall_s < view.wall_s:
        return None
    return request


def _forced_reason(view: View, request: Request) -> str | None:
    """Also a forced claim waits until what the old leader may do by its renewals is over.

    One that was alone has no deadline, and one on a peer's promise a later one (S6): they may
    acknowledge until they hear of the claim.  The person was told (docs/guarantees.md).
    """
    if silent_for_s(view) < lease_s(view) or promised(view):
        return None
    return f"{request.asked_by} accepted a loss of data"
