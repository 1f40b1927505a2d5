"""The peer lease (S6): an outage of all of etcd costs nothing while the database nodes talk.

Without etcd nobody can claim, so nobody needs the leader to stop; but the leader can't know
that etcd is silent for the others too.  A promotable standby can tell it: "I will not claim
before T on my clock".  In mode sync it is the only one who could.

Why it holds: the standby's T counts from when it was asked or later, the leader's permission
from when it asked, less the margin.  A claim that was sent before can't be carried out after,
because nobody promises while a swap of its own may still arrive.
"""

from flightmode.model.cluster import ClusterState, Mode
from flightmode.model.lease import Leased
from flightmode.model.policy import Policy
from flightmode.model.view import StoreView


def promises(store: StoreView, me: str, asker: str, term: int) -> bool:
    """Whether this node may promise `asker` not to claim for a while.

    `store` is as of the last look.  A doubtful swap of ours may be a claim; one of an earlier
    life of this agent can no longer be carried out once the state has changed since it began.
    """
    state = store.state
    return (
        state is not None
        and not store.reachable
        and store.in_doubt is None
        and store.saw_change
        and (state.term, state.leader) == (term, asker)
        and state.mode is Mode.SYNC
        and me in state.sync
    )


def promised_for_s(state: ClusterState | None, policy: Policy) -> float:
    """How long a promise holds: no longer than a next life of this agent waits in any case."""
    recorded_s = 0.0 if state is None else state.ttl_s
    return min(policy.ttl_s, recorded_s or policy.ttl_s)


def whom_to_ask(state: ClusterState | None, me: str) -> tuple[str, ...]:
    """Those whose promise a leader needs: all who are promotable."""
    if state is None or state.leader != me or state.mode is not Mode.SYNC:
        return ()
    return state.sync


def leased_until_s(state: ClusterState, leased: Leased | None, policy: Policy) -> float | None:
    """Until when the promise lets the leader's Postgres run; None: it does not.

    A change of the state that this leader does not know of can only have taken the standby
    out of the sync set, or be the standby's own claim, which it does not promise against.
    """
    if leased is None or leased.term != state.term or state.mode is not Mode.SYNC:
        return None
    if state.sync != (leased.by,):
        return None
    return leased.sent_s + leased.for_s * (1 - policy.margin)
