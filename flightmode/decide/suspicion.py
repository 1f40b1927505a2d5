"""Whether every sign of life of the leader's host is missing here (S3.1, the fast path).

Nothing in this file makes a claim safe; that is the detach and the swap.  It keeps a claim
from being a false alarm, so every doubt counts as a sign of life:

- heartbeats of two processes (agent, fence) over two channels (UDP, TCP), each of which was
  heard before: what was never heard has not fallen silent;
- a renewal of the state, which only a leader that reaches etcd can make;
- anything that its Postgres sent to this standby, so that the death or the upgrade of an
  agent, or a firewall, is not taken for the death of a host;
- a gap in our own listening: who slept can't say that others were silent.
"""

from flightmode.decide.answer import IDLE_S, SOON_S
from flightmode.model.member import NodeKind
from flightmode.model.view import View


def silence_s(view: View) -> float | None:
    """For how long nothing of the leader's host was heard; None: this node can't tell."""
    state, listening = view.store.state, view.listening
    if view.policy.suspect_after_s <= 0 or state is None or not view.store.reachable:
        return None
    if state.leader == view.me.name or listening.since_s is None:
        return None
    database = view.me.kind is NodeKind.DATABASE
    if database and view.now_s - listening.since_s < max(view.policy.ttl_s, state.ttl_s):
        # What this agent promised in an earlier life is over by then, as on the slow path.
        return None
    heard = listening.of(state.leader)
    beats = None if heard is None else heard.all_known
    if beats is None:
        return None
    last_s = max(*beats, view.store.state_changed_s, listening.attentive_since_s)
    if database:
        if view.memory.wal_heard_s is None:
            return None
        last_s = max(last_s, view.memory.wal_heard_s)
    return view.now_s - last_s


def host_silence_s(view: View, node: str) -> float:
    """For how long no heartbeat of that host was heard; 0: it was, or this node can't tell."""
    heard = view.listening.of(node)
    beats = None if heard is None else heard.all_known
    if beats is None or view.listening.since_s is None:
        return 0.0
    return view.now_s - max(*beats, view.listening.attentive_since_s)


def suspects(view: View) -> int | None:
    """The term whose leader's host this node takes for lost."""
    silent_s, state = silence_s(view), view.store.state
    if state is None or silent_s is None or silent_s < view.policy.suspect_after_s:
        return None
    return state.term


def deaf_to(view: View) -> str | None:
    """Why a loss of the leader's host could not be noticed here before the ttl, for people."""
    state, listening = view.store.state, view.listening
    if view.policy.suspect_after_s <= 0 or state is None or state.leader == view.me.name:
        return None
    if listening.deaf is not None or listening.since_s is None:
        return listening.deaf
    heard = listening.of(state.leader)
    if view.now_s - listening.since_s < view.policy.ttl_s or heard is None:
        return None
    never = [
        what
        for what, last_s in (
            ("its agent over UDP", heard.agent_udp_s),
            ("its agent over TCP", heard.agent_tcp_s),
            ("its fence", heard.fence_s),
        )
        if last_s is None
    ]
    return f"{state.leader}: never heard {', '.join(never)}" if never else None


def second_observer(view: View) -> str | None:
    """Another node that says the same of this term, and said so just now."""
    state = view.store.state
    fresh_s = min(view.policy.member_fresh_s, 2 * view.policy.renew_every_s)
    for seen in view.store.members:
        if state is None or seen.member.name in (view.me.name, state.leader):
            continue
        known = view.policy.node(seen.member.name) is not None
        said_now = view.now_s - seen.changed_s <= fresh_s
        if known and said_now and seen.member.suspects == state.term:
            return seen.member.name
    return None


def until_suspicion_s(view: View) -> float:
    """When to look again, so that a silence is noticed when it is long enough."""
    silent_s = silence_s(view)
    if silent_s is None:
        return IDLE_S
    left_s = view.policy.suspect_after_s - silent_s
    return IDLE_S if left_s <= 0 else min(IDLE_S, max(SOON_S, left_s))
