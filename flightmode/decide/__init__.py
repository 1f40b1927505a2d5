"""From what is to what to do: pure functions of one frozen View.

No clock, socket, file, environment or global is read in this package; the time is a
field of the view, and what the node remembers is a value that comes in with the view
and goes out with the decision.  The same code runs in production, in the simulator,
and in `flightmode replay`.  What follows from a view depends on what is, not on what
happened: every action may be lost or repeated.

The rules and their numbers (S1-S10, I1-I10) are those of docs/invariants.md.
"""

from typing import assert_never

from flightmode.decide.bootstrap import bootstrap
from flightmode.decide.following import following
from flightmode.decide.invariants import check
from flightmode.decide.isolation import isolation
from flightmode.decide.leading import leading
from flightmode.decide.namesake import beside_a_namesake, stand_back
from flightmode.decide.publishing import publish
from flightmode.decide.remember import refresh
from flightmode.decide.situation import Situation, situation
from flightmode.decide.superseded import stand_still
from flightmode.decide.witness import observing
from flightmode.model.decision import Decision
from flightmode.model.view import View


def decide(view: View) -> Decision:
    """What this node does now, and why.  Raises AssertionError only for a bug of ours."""
    view = refresh(view)
    match situation(view):
        case Situation.ISOLATION:
            decision = isolation(view)
        case Situation.OBSERVING:
            decision = observing(view)
        case Situation.NAMESAKE:
            decision = stand_back(view)
        case Situation.BOOTSTRAP:
            decision = bootstrap(view)
        case Situation.SUPERSEDED:
            decision = stand_still(view)
        case Situation.LEADING:
            decision = leading(view)
        case Situation.FOLLOWING:
            decision = following(view)
        case never:
            assert_never(never)
    decision = publish(view, beside_a_namesake(view, decision))
    check(view, decision)
    return decision
