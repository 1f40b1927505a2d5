"""Two machines carry this node's name, as after an edit of its address in flightmode.toml (R45).

The state names a leader, and not its machine: both would read that they lead.  Whoever holds the
term goes on as if nothing were (I9); nobody else claims, promotes, leads or starts anything (I1),
nor does it write over what the other one says of itself.  A standby that runs goes on to stream
and is not promoted: what was acknowledged in its name may be on the other machine (I2).
"""

from dataclasses import replace

from flightmode.decide.answer import SOON_S, answer
from flightmode.decide.permission import lease_s
from flightmode.model.action import FencePostgres
from flightmode.model.decision import Decision
from flightmode.model.member import MemberSeen
from flightmode.model.server import Role, Run
from flightmode.model.view import View


def namesake(view: View) -> str | None:
    """Which other machine has this node's name, or may have it; None: none is there.

    One that was there before this agent is waited for: its record says when it is written next.
    """
    memory, within_s = view.memory, _within_s(view)
    if memory.namesake_s is not None and view.now_s - memory.namesake_s <= within_s:
        return memory.namesake
    theirs, since_s = of_another_machine(view), view.store.first_read_s
    if theirs is None or (since_s is not None and view.now_s - since_s > within_s):
        return None
    return theirs.member.machine


def _within_s(view: View) -> float:
    """So long it has to be silent.  One that led has to be replaced by whoever is promotable, if
    anybody is, before this machine begins to speak for it."""
    state, fresh_s = view.store.state, view.policy.member_fresh_s
    if state is None or state.leader != view.me.name or holds(view):
        return fresh_s
    return max(fresh_s, 2 * lease_s(view))


def of_another_machine(view: View) -> MemberSeen | None:
    """This node's own record, if another machine wrote it last."""
    own = (seen for seen in view.store.members if seen.member.name == view.me.name)
    return next((seen for seen in own if seen.member.machine != view.machine), None)


def holds(view: View) -> bool:
    """Whether this very machine leads the term: it swapped for it, or its fence serves it."""
    state, fence = view.store.state, view.fence
    if state is None or state.leader != view.me.name:
        return False
    serves = fence.reachable and fence.running and fence.role is Role.PRIMARY
    renewed = view.renewed is not None and view.renewed.term == state.term
    return renewed or (serves and fence.term == state.term)


def stands_back(view: View) -> bool:
    """Whether this machine leaves everything to its namesake."""
    if namesake(view) is None:
        return False
    state = view.store.state
    if state is None or state.leader == view.me.name:
        return not holds(view)
    return view.server.run in (Run.STOPPED, Run.ABSENT)


def stand_back(view: View) -> Decision:
    """Nothing; but a primary of a term that is over ends (I1)."""
    state, fence, problem = view.store.state, view.fence, _problem(view)
    serves = fence.reachable and fence.running and fence.role is Role.PRIMARY
    if state is not None and state.pause is None and serves and fence.term < state.term:
        why = f"another machine called {view.me.name} leads term {state.term}"
        end = FencePostgres(state.term, why)
        return answer(view, "namesake: step down", why, end, problem=problem, wake_s=SOON_S)
    why = f"another machine is called {view.me.name}, or may be: leaving everything to it"
    return answer(view, "namesake: stand back", why, problem=problem, wake_s=0.1)


def beside_a_namesake(view: View, decision: Decision) -> Decision:
    """Whoever goes on says so too."""
    if decision.problem is not None or namesake(view) is None:
        return decision
    return replace(decision, problem=_problem(view))


def _problem(view: View) -> str:
    mine, theirs = view.machine, namesake(view)
    return f"FM614: two machines are called {view.me.name}: this one ({mine}), and {theirs}"


def keeps_silent(view: View) -> bool:
    """A newcomer must not write over the record of whom it found: others go by that."""
    runs = view.fence.reachable and view.fence.running
    return namesake(view) is not None and view.memory.published is None and not runs
