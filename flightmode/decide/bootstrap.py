"""There is no `state` key: a new cluster, or a store that lost its data.

Only the node that flightmode.toml names makes a cluster, and only when every other
database node says that it has no data: an emptied etcd must never lead to a second,
empty or older, truth (I2, I10).
"""

from flightmode.decide.answer import answer, recently_failed
from flightmode.decide.members import fresh
from flightmode.model.action import Initdb, SwapState
from flightmode.model.cluster import ClusterState, HistoryEntry, Mode
from flightmode.model.decision import Decision
from flightmode.model.server import Run
from flightmode.model.view import JobKind, View


def bootstrap(view: View) -> Decision:
    """Make the cluster, or wait for the one who does."""
    if view.job is not None:
        why = f"waiting for the job: {view.job.kind}"
        return answer(view, "bootstrap: job", why, wake_s=0.05)
    if view.policy.bootstrap != view.me.name:
        return answer(view, "bootstrap: wait", f"waiting for {view.policy.bootstrap} to begin")
    others = [name for name in view.policy.databases if name != view.me.name]
    unseen = [name for name in others if not fresh(view, name)]
    if unseen:
        why = f"before a cluster is made, every database node must be up: {', '.join(unseen)}"
        return answer(view, "bootstrap: wait", why, wake_s=0.1)
    holders = [name for name in others if not _is_empty(view, name)]
    if holders:
        problem = f"FM611: etcd holds no cluster, but {', '.join(holders)} has data, or may have"
        why = "a store that lost its data must not lead to a new cluster; a person has to decide"
        return answer(view, "bootstrap: refuse", why, problem=problem)
    failed = recently_failed(view, JobKind.INITDB)
    if failed is not None:
        return answer(view, "bootstrap: failed", "trying again shortly", problem=failed)
    if view.server.run is Run.ABSENT:
        return answer(view, "bootstrap: initdb", "making a new database", Initdb(), wake_s=0.05)
    return _create(view)


def _is_empty(view: View, name: str) -> bool:
    """It has looked, and found none.  Of a Postgres that does not answer yet it knows nothing."""
    member = view.store.member(name)
    return member is not None and member.run is Run.ABSENT


def _create(view: View) -> Decision:
    data = view.server.data
    if data is None or data.pg_major != view.policy.pg_major or data.unfinished is not None:
        found = "unreadable" if data is None else f"of Postgres {data.pg_major}"
        problem = f"FM607: the data directory is {found}; this cluster needs {view.policy.pg_major}"
        return answer(view, "bootstrap: unusable data", "cannot begin with this", problem=problem)
    known = (max(seen.member.term, seen.member.fence_term) for seen in view.store.members)
    term = max([view.fence.term, *known]) + 1
    why = "the database is there: recording this node as the leader of the first term"
    state = ClusterState(
        data.system_identifier,
        term,
        view.me.name,
        Mode.SOLO,
        (),
        1,
        "bootstrap",
        view.wall_s,
        ttl_s=view.policy.ttl_s,
    )
    history = HistoryEntry(term, view.me.name, None, "bootstrap", view.wall_s, data.position)
    return answer(
        view, "bootstrap: create", why, SwapState("create", 0, state, history), wake_s=0.02
    )
