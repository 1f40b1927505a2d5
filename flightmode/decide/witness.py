"""A witness has no database: it publishes that it is there, and watches."""

from flightmode.decide.answer import answer
from flightmode.model.decision import Decision
from flightmode.model.view import View


def observing(view: View) -> Decision:
    """Nothing but to be seen."""
    state = view.store.state
    seen = "no cluster yet" if state is None else f"{state.leader} leads term {state.term}"
    return answer(view, "witness: observe", seen)
