"""A person has accepted a loss and named another node, and this leader cannot serve.

Only a leader that has been silent for its whole lease can be followed by force (I8), so one
whose agent lives has to fall silent, or its renewals would keep the person from it.  A leader
that could still start has everything that it acknowledged: it starts, and the request is refused.
"""

from flightmode.decide.answer import answer
from flightmode.decide.permission import state_of
from flightmode.decide.requests import asked
from flightmode.model.action import KillRemnants
from flightmode.model.cluster import Request, RequestKind
from flightmode.model.decision import Decision
from flightmode.model.server import Run
from flightmode.model.view import JobKind, View

# What SIGKILL has not ended by then waits for its disk.
_DYING_S = 1.0


def gives_way(view: View, wrong: str | None) -> Decision | None:
    """Neither renew nor start anything, while the request lasts; None: it need not.

    `wrong`: why the data directory is of no use.  When the request is over and nobody has claimed,
    all goes on as before, and nothing is started before a renewal was confirmed again.
    """
    request = asked(view, RequestKind.FAILOVER)
    if request is None or not _names_another(view, request) or not _lies_down(view, wrong):
        return None
    why = f"{request.asked_by} accepted a loss of data and named {request.node}: not renewing"
    dying = view.server.run is Run.DYING and view.fence.reachable
    kill = (KillRemnants(state_of(view).term),) if dying else ()
    return answer(view, "leading: give way", why, *kill, wake_s=0.1)


def _names_another(view: View, request: Request) -> bool:
    other = request.node in view.policy.databases and request.node != view.me.name
    return other and request.expires_wall_s >= view.wall_s


def _lies_down(view: View, wrong: str | None) -> bool:
    """Postgres is down, and nothing that was begun could still bring it up."""
    since_s = view.memory.dying_since_s
    if view.job is not None:
        return False
    match view.server.run:
        case Run.ABSENT:
            return True
        case Run.DYING:
            return since_s is not None and view.now_s - since_s >= _DYING_S
        case Run.STOPPED:
            # In a pause only what the fence ended starts again.
            stays_down = state_of(view).pause is not None and not view.memory.fenced
            return wrong is not None or stays_down or _start_failed(view)
        case _:
            return False


def _start_failed(view: View) -> bool:
    """In this term, and it has not been up since."""
    start = view.result(JobKind.START)
    if start is None or start.term != state_of(view).term:
        return False
    return start.error is not None or view.memory.starting_since_s is not None
