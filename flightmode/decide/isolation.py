"""The store is silent: nothing is known, so nothing changes (S1).

A leader goes on until its permission ends; the fence sees to that end without us.  A
standby goes on as it is.  Who is alone in mode solo goes on without an end (I6).
"""

from flightmode.decide.answer import answer
from flightmode.model.decision import Decision
from flightmode.model.server import Run
from flightmode.model.view import View


def isolation(view: View) -> Decision:
    """Wait for the store."""
    silent_s = view.now_s - view.store.read_s
    why = f"etcd has not answered for {silent_s:.1f} s: leaving everything as it is"
    if view.store.read_s < 0:
        why = "etcd has not answered since this agent started: waiting for it"
    if view.server.run is Run.PRIMARY:
        why += _until(view)
    problem = "FM101: no majority of etcd answers" if silent_s > view.policy.ttl_s else None
    return answer(view, "isolation: wait", why, wake_s=0.1, problem=problem)


def _until(view: View) -> str:
    if view.fence.lifted:
        return "; Postgres serves on, nobody else could be promoted"
    if view.fence.deadline_s is None:
        return ""
    left_s = max(0.0, view.fence.deadline_s - view.now_s)
    return f"; Postgres may serve for {left_s:.1f} s more"
