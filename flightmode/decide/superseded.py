"""etcd holds an older truth than this cluster has lived: it came from a backup.

A fence knows the highest term that it has served, whatever etcd says.  Whoever the older
state names may lack what was acknowledged since, so nobody is stopped, started or promoted by
it (I2, I10): what runs goes on as far as its fence lets it, and a person has to decide.
"""

from flightmode.decide.answer import answer
from flightmode.decide.permission import state_of
from flightmode.model.decision import Decision
from flightmode.model.member import MemberSeen
from flightmode.model.server import Run
from flightmode.model.view import View


def superseded(view: View) -> bool:
    """Whether this node's own fence has served a later term than the state's."""
    return view.fence.reachable and view.fence.term > state_of(view).term


def stand_still(view: View) -> Decision:
    """Nothing but to say so."""
    state, fence = state_of(view), view.fence
    why = f"etcd says that {state.leader} leads term {state.term}, and term {fence.term} has been"
    problem = f"FM632: {why}: it came from a backup"
    return answer(view, "superseded: wait", f"{why}: leaving everything as it is", problem=problem)


def newer_elsewhere(view: View) -> str | None:
    """Which other node shows that the state is older than the cluster; None: none that is heard.

    Its fence has served a later term; or it was a primary on a later timeline than a primary
    that is to be started here.  Who was passed over by a person does not count.
    """
    for seen in view.store.members:
        if seen.member.name == view.me.name or not _heard(view, seen):
            continue
        if seen.member.fence_term > state_of(view).term:
            return f"the fence of {seen.member.name} has served term {seen.member.fence_term}"
        if _on_a_later_timeline(view, seen):
            return f"{seen.member.name} was a primary on a later timeline"
    return None


def unheard(view: View) -> str | None:
    """The database node to wait for a moment: it could say that the state is an older one.

    Only by an agent that was itself started in this term.
    """
    store, since_s = view.store, view.store.first_read_s
    if store.saw_term_begin or since_s is None or view.now_s - since_s > view.policy.member_fresh_s:
        return None
    others = [name for name in view.policy.databases if name != view.me.name]
    heard = [seen.member.name for seen in store.members if _heard(view, seen)]
    return next((name for name in others if name not in heard), None)


def _heard(view: View, seen: MemberSeen) -> bool:
    return view.now_s - seen.changed_s <= view.policy.member_fresh_s


def _on_a_later_timeline(view: View, seen: MemberSeen) -> bool:
    mine, theirs, data = view.server.history, seen.member.history, view.server.data
    if mine is None or theirs is None or data is None or not data.was_primary:
        return False
    if seen.member.name in state_of(view).passed_over:
        return False
    return seen.member.run in (Run.PRIMARY, Run.STOPPED) and theirs.timeline > mine.timeline


def outdated(view: View) -> Decision | None:
    """A state from a backup names a leader that may lack what was acknowledged since (I2)."""
    newer = newer_elsewhere(view)
    if newer is not None:
        term = state_of(view).term
        problem = f"FM632: {newer}, and etcd says term {term}: it came from a backup"
        why = f"{newer}: nothing is started here before a person has decided"
        return answer(view, "leading: superseded", why, problem=problem, wake_s=0.1)
    name = unheard(view)
    if name is None:
        return None
    why = f"hearing {name} first: it may know that etcd came from a backup"
    return answer(view, "leading: listen", why, wake_s=0.05)
