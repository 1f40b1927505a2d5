"""A witness has no database: it publishes that it is there, and watches."""

from flightmode.decide.answer import answer
from flightmode.decide.suspicion import suspects, until_suspicion_s
from flightmode.model.decision import Decision
from flightmode.model.view import View


def observing(view: View) -> Decision:
    """Be seen, and say so when the leader's host is not (S3.1)."""
    state = view.store.state
    seen = "no cluster yet" if state is None else f"{state.leader} leads term {state.term}"
    if suspects(view) is not None:
        why = f"{seen}, and nothing is heard of its host any more: saying so"
        return answer(view, "witness: suspect", why)
    return answer(view, "witness: observe", seen, wake_s=until_suspicion_s(view))
