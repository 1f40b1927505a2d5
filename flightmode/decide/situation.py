"""Which situation a node is in: exhaustive, the first that holds."""

from enum import Enum, auto

from flightmode.decide.namesake import stands_back
from flightmode.decide.superseded import superseded
from flightmode.model.member import NodeKind
from flightmode.model.view import View


class Situation(Enum):
    """See the file of the same name for what follows from each."""

    ISOLATION = auto()
    OBSERVING = auto()
    NAMESAKE = auto()
    BOOTSTRAP = auto()
    SUPERSEDED = auto()
    LEADING = auto()
    FOLLOWING = auto()


def situation(view: View) -> Situation:
    """The one situation that holds."""
    if not view.store.reachable:
        return Situation.ISOLATION
    if view.me.kind is NodeKind.WITNESS:
        return Situation.OBSERVING
    if stands_back(view):
        return Situation.NAMESAKE
    if view.store.state is None:
        return Situation.BOOTSTRAP
    if superseded(view):
        return Situation.SUPERSEDED
    if view.store.state.leader == view.me.name:
        return Situation.LEADING
    return Situation.FOLLOWING
