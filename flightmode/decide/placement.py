"""On which host etcd's leader should be: never on the primary's, or one loss would cost both.

When both go at once nobody can claim before etcd has elected again, a second or two.  Safety
does not depend on it, so it is done only when there is nothing else to do.
"""

from flightmode.model.member import NodeKind
from flightmode.model.placement import Placement
from flightmode.model.server import Run
from flightmode.model.view import View


def better_place(view: View, etcd: Placement) -> str | None:
    """The node whose member should lead etcd instead; None: leave it.

    Only the leader asks for it, of a quiet cluster: while anything is suspect, etcd's own
    election may be under way, and a move would be one disturbance more.
    """
    state = view.store.state
    if not view.store.reachable or state is None or state.leader != view.me.name:
        return None
    if etcd.leader != view.me.name or view.server.run is not Run.PRIMARY or _anything_on(view):
        return None
    others = [node for node in view.policy.nodes if node.name in etcd.well]
    witnesses = [node.name for node in others if node.kind is NodeKind.WITNESS]
    standbys = [node.name for node in others if node.name != view.me.name]
    return next(iter((*witnesses, *standbys)), None)


def _anything_on(view: View) -> bool:
    suspected = any(seen.member.suspects is not None for seen in view.store.members)
    state = view.store.state
    changing = state is not None and (state.handover is not None or state.pause is not None)
    doubtful = view.store.in_doubt is not None
    return suspected or changing or doubtful or bool(view.store.requests) or view.job is not None
