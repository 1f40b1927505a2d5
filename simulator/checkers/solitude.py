"""Since when a leader knows that it is alone: what two rules hold it to."""

from flightmode.model.cluster import Mode
from simulator.history import Began, Fact, StateKnown


class Solitude:
    """What each node's agent was told, fact by fact; a new agent has been told nothing yet."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def heard(self, fact: Fact) -> None:
        """Take note of it, if it is about that."""
        match fact:
            case StateKnown() if fact.state is not None and fact.state.mode is Mode.SOLO:
                self._since_s.setdefault(fact.node, fact.at_s)
            case StateKnown() | Began():
                self._since_s.pop(fact.node, None)
            case _:
                pass

    def since_s(self, node: str) -> float | None:
        """None: it does not know it."""
        return self._since_s.get(node)
