"""Who takes writes, who takes reads: the one answer for health checks, proxies and DNS.

Rule: writes go to the node that holds the term and whose Postgres accepts them; a node
answers for itself by its own permission, and for others by what they last said in the
same term.  A wrong guess about another node costs a refused connection, never a lost
commit: safety rests on the fence and the sync set, not on routing.
"""

from dataclasses import dataclass
from typing import Protocol

from flightmode.decide.permission import deadline_s, solo_confirmed
from flightmode.model.cluster import ClusterState, Mode
from flightmode.model.member import MemberSeen, NodeKind
from flightmode.model.policy import Policy
from flightmode.model.server import Run
from flightmode.model.view import StoreView, View


class Outlook(Protocol):
    """What the store tells anybody, also who is no node: a `View` is one."""

    @property
    def now_s(self) -> float: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def store(self) -> StoreView: ...


@dataclass(frozen=True, slots=True)
class Route:
    """Where clients should go."""

    writes: str | None
    """The member that accepts writes; None: nobody does now."""
    reads: tuple[str, ...]
    """Standbys that stream from it, in the order of the file; without one, the primary."""
    reason: str


def route(view: View) -> Route:
    """As this node sees it."""
    state = view.store.state
    if state is None:
        return Route(None, (), "there is no cluster yet")
    obstacle = (
        _obstacle_here(view) if state.leader == view.me.name else _obstacle_there(view, state)
    )
    writes = state.leader if obstacle is None else None
    standbys = tuple(name for name in view.policy.databases if streams(view, name))
    reads = standbys or (() if writes is None else (writes,))
    return Route(writes, reads, obstacle or f"{state.leader} leads term {state.term}")


def obstacle_to_writes(outlook: Outlook) -> str | None:
    """What keeps the leader from taking writes, as far as the store tells; None: nothing."""
    state = outlook.store.state
    return "there is no cluster yet" if state is None else _obstacle_there(outlook, state)


def holds_primary(view: View) -> bool:
    """Whether this node holds the term, and its Postgres accepts writes now."""
    state = view.store.state
    return state is not None and state.leader == view.me.name and _obstacle_here(view) is None


def streams(view: View, name: str) -> bool:
    """Whether that node is a standby that streams from the leader."""
    state = view.store.state
    if state is None or name == state.leader:
        return False
    if name == view.me.name:
        receiver, server = view.server.receiver, view.server
        streaming = receiver is not None and receiver.streaming
        return server.run is Run.STANDBY and streaming and server.following == state.leader
    seen = _seen(view, name)
    if seen is None or view.now_s - seen.changed_s > view.policy.member_fresh_s:
        return False
    member = seen.member
    return member.run is Run.STANDBY and member.streaming and member.following == state.leader


def unwell(view: View) -> str | None:
    """Why this node does not do its part; None: it does."""
    state = view.store.state
    if view.me.kind is NodeKind.WITNESS:
        return None if view.store.reachable else "etcd does not answer"
    if state is None:
        return "there is no cluster yet"
    if state.leader == view.me.name:
        return _obstacle_here(view)
    if not streams(view, view.me.name):
        return f"Postgres is {view.server.run} and does not stream from {state.leader}"
    return None


def _obstacle_here(view: View) -> str | None:
    """What keeps this node, which the state names, from taking writes."""
    me = view.me.name
    if view.server.run is not Run.PRIMARY:
        return f"{me} leads, and its Postgres is {view.server.run}"
    if not view.server.admits_clients:
        return f"{me} leads, and lets no clients in yet"
    if not _permitted(view):
        return f"the permission of {me} to lead is over"
    return None


def _permitted(view: View) -> bool:
    """The fence's word where there is one: it is what stops Postgres; else our own count."""
    fence, state = view.fence, view.store.state
    assert state is not None
    if fence.reachable:
        in_time = fence.deadline_s is not None and fence.deadline_s > view.now_s
        return fence.term == state.term and not fence.expired and (fence.lifted or in_time)
    end_s = deadline_s(view)
    return solo_confirmed(view) or (end_s is not None and end_s > view.now_s)


def _obstacle_there(view: Outlook, state: ClusterState) -> str | None:
    """What keeps the leader, another node, from taking writes as far as is known here."""
    if state.handover is not None:
        return f"{state.leader} hands over to {state.handover.to}"
    seen = _seen(view, state.leader)
    if seen is None or seen.member.term != state.term:
        return f"{state.leader} has said nothing in term {state.term} yet"
    if seen.member.run is not Run.PRIMARY:
        return f"{state.leader} leads, and its Postgres is {seen.member.run}"
    if not seen.member.admits_clients:
        return f"{state.leader} leads, and lets no clients in yet"
    if _silent(view, state):
        return f"{state.leader} leads, and has not been heard of for its ttl"
    return None


def _silent(view: Outlook, state: ClusterState) -> bool:
    """Whether its permission must be over.  In mode solo and in a pause nothing ends it (I6, I7);
    while the store does not answer, nothing is known."""
    if state.mode is Mode.SOLO or state.pause is not None or not view.store.reachable:
        return False
    return view.now_s - view.store.state_changed_s > view.policy.ttl_s


def _seen(view: Outlook, name: str) -> MemberSeen | None:
    return next((seen for seen in view.store.members if seen.member.name == name), None)
